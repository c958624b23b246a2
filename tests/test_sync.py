"Checks of the book as a whole: texts that must agree, notebooks that must stay readable, imports that must run downwards."
import ast, importlib, json, re
from pathlib import Path

import pytest

from mrbook.cli import check_study

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
STUDIES = [p for p in NOTEBOOKS if p.parent.name == "studies"]
MODULES = sorted(p for p in (ROOT / "mrbook").rglob("*.py") if p.name != "_modidx.py")
name = lambda p: str(p.relative_to(ROOT))


def cells(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell): return "".join(cell["source"])


def test_readme_is_the_front_page():
    front = cells(ROOT / "nbs/index.ipynb")
    assert {c["cell_type"] for c in front} == {"markdown"}
    assert "\n\n".join(map(source, front)).strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("path", STUDIES, ids=name)
def test_study_can_be_run_by_papermill(path): assert check_study(path).name == path.stem


@pytest.mark.parametrize("path", STUDIES, ids=name)
def test_committed_results_belong_to_their_study(path):
    from mrbook.evaluate.report import load_metrics
    folder = ROOT / "results" / path.stem
    if not folder.exists(): pytest.skip(f"no full run of {path.stem} is committed")
    found = load_metrics(folder / "metrics.json")
    assert (found["study"], found["preset"]) == (path.stem, "full")
    assert (folder / "table.md").is_file()
    assert all((folder / f["file"]).is_file() for f in found.get("figures", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_is_readable(path):
    assert path.stat().st_size < 300_000, f"{path.stat().st_size // 1000} kB: lower the dpi of its figures"
    first, code = cells(path)[0], [c for c in cells(path) if c["cell_type"] == "code"]
    assert first["cell_type"] == "markdown" and re.fullmatch(r"# [^\n]+\n+> [^\n]+\n?", source(first)), "the first cell is '# Title' and '> one line', nothing else"
    assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error"], "a stored output is an error"
    assert max((len(source(c).splitlines()) for c in code), default=0) <= 84, "a code cell has more than 84 lines"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_lines_are_short(path):
    lines = [l for c in cells(path) if c["cell_type"] == "code" for l in source(c).split("\n")]
    assert not [l for l in lines if len(l) > 120 and not re.match(r"#\||[0-9a-f]{64} ", l)], "a line has more than 120 characters"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_exported_cells_carry_no_flag(path):
    for c in cells(path):
        if re.search(r"^#\|\s*export", source(c), re.M): assert not re.search(r"^#\|\s*(slow|data|cuda|eval)", source(c), re.M), source(c)[:80]


ROOMS = ("scans", "mri", "cohorts", "nets", "generative", "learn", "evaluate", "methods", "registry", "recipes", "cli")  # each imports from those before it


def room(module): return module.split(".")[1] if module.count(".") else module


def imports(path, top_only=False):
    "Modules of mrbook, or all top-level modules, that a file imports; the package itself is 'mrbook'."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[:-node.level]) if node.level else ""
            yield ".".join(x for x in (base, node.module) if x)


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=name)
def test_imports_run_downwards(path):
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own in ROOMS, f"{own} is not a room of the book"
    above = {room(m) for m in imports(path) if m.startswith("mrbook.")} & set(ROOMS[ROOMS.index(own) + 1:])
    assert not above, f"{own} lies below {sorted(above)}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=name)
def test_no_module_is_named_in_a_string(path): # an import that the test above would not see
    strings = [n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    docs = {ast.get_docstring(n, clean=False) for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, (ast.Module, ast.FunctionDef, ast.ClassDef))}
    found = [s for s in strings if s not in docs and re.fullmatch(rf"(mrbook\.)?({'|'.join(ROOMS)})(\.\w+)+", s)]
    assert not found, found


def test_no_circle():
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in MODULES if p.name != "__init__.py"}
    edges = {n: {m for m in imports(p) if m in names} - {n} for n, p in names.items()}
    while edges:
        free = {n for n, m in edges.items() if not m & set(edges)}
        assert free, f"these modules import each other: {sorted(edges)}"
        for n in free: del edges[n]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_dev_tools_are_not_needed_at_run_time(path):
    assert not {m.split(".")[0] for m in imports(path)} & {"fastcore", "nbdev", "execnb", "pandas", "pytest", "torchvision", "seaborn"}


LOCAL = re.compile(r"(?<![\w.~$])/(?:work|tmp|root|home|farm|opt)/")


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS + MODULES + [ROOT / "README.md", ROOT / "Makefile", ROOT / "constraints.txt"]], ids=name)
def test_no_path_of_one_machine(path):
    text = "\n".join(map(source, cells(path))) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    assert not LOCAL.search(text), LOCAL.search(text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_outputs_carry_no_path_of_one_machine(path):
    outputs = [o for c in cells(path) if c["cell_type"] == "code" for o in c["outputs"]]
    texts = ["".join(o.get("text", "")) + "".join(o.get("data", {}).get("text/plain", "")) for o in outputs]
    assert not [t[:200] for t in texts if LOCAL.search(t)]


def named(path):
    "Names of mrbook in backticks, e.g. `mrbook.mri.phantom.phantom`."
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(map(source, cells(path)))
    return sorted(set(re.findall(r"`(mrbook(?:\.\w+)+)(?:\([^`]*\))?`", text)))


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize("path", [p for p in [*NOTEBOOKS, ROOT / "README.md"] if named(p)], ids=name)
def test_names_in_backticks_are_there(path):
    for whole in named(path):
        parts = whole.split(".")
        for k in range(len(parts), 0, -1):
            try: found = importlib.import_module(".".join(parts[:k]))
            except ModuleNotFoundError: continue
            for part in parts[k:]: found = getattr(found, part, None)
            break
        assert found is not None, f"there is no {whole}"
