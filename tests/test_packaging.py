"The package as a stranger gets it: one source of truth for its metadata, every module importable, a wheel that carries its weights, a command that answers at once."
import ast, configparser, hashlib, importlib, json, os, re, resource, shutil, subprocess, sys, tarfile, zipfile
from importlib import metadata
from pathlib import Path

import pytest

import mrbook

ROOT = Path(__file__).resolve().parents[1]
CONFIG = configparser.ConfigParser(delimiters=["="])
CONFIG.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = CONFIG["DEFAULT"]
MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "mrbook").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
normal = lambda requirement: re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def test_metadata_comes_from_settings():
    found = metadata.metadata("mrbook")
    assert found["Version"] == SETTINGS["version"] == mrbook.__version__
    assert found["Summary"] == SETTINGS["description"]
    core = {normal(r) for r in metadata.requires("mrbook") if "extra ==" not in r}
    assert core == {normal(r) for r in SETTINGS["requirements"].split()}
    assert set(found.get_all("Provides-Extra")) == set(SETTINGS["extras"].split())
    assert found["License-Expression"] == "Apache-2.0" and {"Source", "Issues", "Changelog"} <= {u.split(",")[0] for u in found.get_all("Project-URL")}
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(found.get_all("Classifier"))


def test_every_requirement_is_pinned():
    lines = [l for l in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if l and not l.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", l) for l in lines), "constraints.txt holds name==version only"
    pinned = {normal(l) for l in lines}
    for key in ("requirements", *(f"{extra}_requirements" for extra in SETTINGS["extras"].split())):
        assert {normal(r) for r in SETTINGS[key].split()} <= pinned


MODULE = {"scikit-image": "skimage", "pot": "ot", "pillow": "PIL", "antspyx": "ants"} # where the name to import is another
OPTIONAL = {"lpips"} # the error says how to install it: it needs a torchvision that fits
imported_as = lambda requirement: MODULE.get(normal(requirement), normal(requirement).replace("-", "_"))


def imported(path):
    "Top-level modules that a file of the library imports, in a function or not."
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level: yield node.module.split(".")[0]


def test_every_import_is_declared():
    "In the core, or in the extra of the commands that need it."
    declared = {imported_as(r) for key in ("requirements", "studies_requirements", "preprocess_requirements") for r in SETTINGS[key].split()}
    used = {m: p.name for p in (ROOT / "mrbook").rglob("*.py") for m in imported(p)}
    unknown = {m: name for m, name in used.items() if m not in declared | OPTIONAL | {"mrbook"} | sys.stdlib_module_names}
    assert not unknown, f"imported, and not in settings.ini: {unknown}"


def test_the_core_is_used_by_the_library():
    "POT is the peer beside which our solver stands in its notebook; it was asked for. nilearn is found, not imported: its templates are files."
    used = {m for p in (ROOT / "mrbook").rglob("*.py") for m in imported(p)}
    found = {m for p in (ROOT / "mrbook").rglob("*.py") for m in re.findall(r"find_spec\(.(\w+)", p.read_text(encoding="utf-8"))}
    unused = {imported_as(r) for r in SETTINGS["requirements"].split()} - used - found - {"ot"}
    assert not unused, f"settings.ini requires what the library never imports: {unused}"


def test_every_extra_is_used():
    "By a notebook, a test or a benchmark; jupyterlab, nbdev and its pins, and setuptools are tools."
    cells = (c["source"] for p in (ROOT / "nbs").rglob("*.ipynb") for c in json.loads(p.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
    files = [p for folder in ("mrbook", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    text = "\n".join([*map("".join, cells), *(p.read_text(encoding="utf-8") for p in files)])
    used = lambda m: re.search(rf"^\s*(from {m}\b|import (.*, )?{m}\b)|(find_spec|import_module|importorskip)\(.{m}\b", text, re.M)
    tools = {"jupyterlab", "execnb", "setuptools", "pytest-benchmark", "ipykernel", "hypothesis", "ruff"}
    unused = [r for extra in SETTINGS["extras"].split() for r in SETTINGS[f"{extra}_requirements"].split() if normal(r) not in tools and not used({"pyyaml": "yaml"}.get(normal(r), imported_as(r)))]
    assert not unused, f"settings.ini asks for what nothing imports: {unused}"


def test_citation():
    "The keys that the Citation File Format 1.2.0 requires, and one version with the package."
    import yaml
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["cff-version"] == "1.2.0" and found["message"] and found["title"] and all(a.get("name") or a.get("family-names") for a in found["authors"])
    assert (str(found["version"]), found["license"], found["repository-code"]) == (SETTINGS["version"], "Apache-2.0", SETTINGS["git_url"])


@pytest.mark.parametrize("module", MODULES)
def test_import(module): importlib.import_module(module)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | dict(OMP_NUM_THREADS="1"))


def test_the_command_imports_nothing_heavy():
    heavy = ["torch", "numpy", "scipy", "matplotlib", "nibabel", "monai", "papermill", "ot", "skimage"]
    assert run_python(f"import sys, mrbook.cli; print([m for m in {heavy} if m in sys.modules])").stdout.strip() == "[]"


def test_the_package_imports_nothing_heavy():
    assert run_python("import sys, mrbook; print('torch' in sys.modules, 'numpy' in sys.modules)").stdout.strip() == "False False"


def run_threads(**env):
    "What OpenMP was told when the library loaded torch."
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", "import mrbook.mri.physics"], capture_output=True, text=True, check=True, env=clean | dict(OMP_DISPLAY_ENV="VERBOSE", OMP_NUM_THREADS="1") | env)
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks GCC's OpenMP")
def test_waiting_threads_sleep():
    "Set before torch is imported, for the library as for the command; a value of the user's stays."
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in run_threads() and "GOMP_SPINCOUNT = '0'" in run_threads()
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in run_threads(OMP_WAIT_POLICY="ACTIVE")


def test_help_is_quick():
    "Seconds of the processor, so that a busy machine does not fail the check; the best of three."
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([Path(sys.executable).parent / "mrbook", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.7, seconds


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    "Made from a copy of the tree, by the build backend itself: no index is needed."
    to = tmp_path_factory.mktemp("sdist") / "tree"
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".git", ".venv*", "runs", "results", "data", "build", "dist", "*.egg-info", ".cache")
    shutil.copytree(ROOT, to, ignore=skip)
    run(sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('dist')", cwd=to)
    return next((to / "dist").glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory):
    "Made from the sdist, as pip does for a stranger."
    to = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", to, sdist)
    return next(to.glob("*.whl"))


def test_sdist_holds_what_it_is_built_from(sdist):
    names = {n.partition("/")[2] for n in tarfile.open(sdist).getnames()}
    assert {"settings.ini", "setup.py", "pyproject.toml", "constraints.txt", "CITATION.cff", "LICENSE", "README.md", "nbs/cli.ipynb", "tests/run_all.py"} <= names
    assert not [n for n in names if "__pycache__" in n or n.startswith(("runs/", "data/", "results/"))]


def test_a_command_of_the_installed_wheel(wheel, tmp_path):
    "Away from the tree, with the package from the wheel alone and its own metadata."
    place = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", place, wheel)
    env = os.environ | dict(PYTHONPATH=str(place), OMP_NUM_THREADS="1")
    where = "import sys, mrbook, mrbook.cli; print(mrbook.__file__); sys.exit(mrbook.cli.main(sys.argv[1:]))"
    out = run(sys.executable, "-c", where, "phantom", "scan.nii.gz", "--contrast", "t2w", "--field", "0.2", "--spacing", "4", cwd=tmp_path, env=env)
    assert out.splitlines() == [str(place / "mrbook/__init__.py"), "scan.nii.gz"] and json.loads((tmp_path / "scan.json").read_text())["tool"] == "mrbook phantom"
    assert "verified" in run(sys.executable, "-c", where, "doctor", cwd=tmp_path, env=env) and (place / "mrbook/py.typed").is_file()


def test_wheel_holds_the_modules(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {m.replace(".", "/") + ".py" for m in MODULES} <= names
    assert not [n for n in names if n.startswith(("tests/", "nbs/", "benchmarks/"))]
    entry = next(n for n in names if n.endswith("entry_points.txt"))
    assert "mrbook = mrbook.cli:main" in zipfile.ZipFile(wheel).read(entry).decode()


@pytest.mark.skipif(not (ROOT / "mrbook/weights/manifest.json").exists(), reason="no weights are shipped yet")
def test_wheel_holds_the_weights(wheel):
    archive = zipfile.ZipFile(wheel)
    shipped = sorted((ROOT / "mrbook/weights").glob("*.safetensors"))
    assert shipped and json.loads(archive.read("mrbook/weights/manifest.json"))
    for p in shipped: assert hashlib.sha256(archive.read(f"mrbook/weights/{p.name}")).digest() == hashlib.sha256(p.read_bytes()).digest()
