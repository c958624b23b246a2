"The package as a stranger gets it: one source of truth for its metadata, every module importable, a wheel that carries its weights, a command that answers at once."
import configparser, hashlib, importlib, json, os, re, resource, shutil, subprocess, sys, zipfile
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
    assert {"dev", "bench", "preprocess"} <= set(found.get_all("Provides-Extra"))


def test_every_requirement_is_pinned():
    lines = [l for l in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if l and not l.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", l) for l in lines), "constraints.txt holds name==version only"
    pinned = {normal(l) for l in lines}
    for key in ("requirements", "dev_requirements", "preprocess_requirements", "bench_requirements"):
        assert {normal(r) for r in SETTINGS[key].split()} <= pinned


def test_every_requirement_is_used():
    "By the library, or by a notebook that sets it beside ours."
    cells = (c["source"] for p in (ROOT / "nbs").rglob("*.ipynb") for c in json.loads(p.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
    text = "\n".join([*map("".join, cells), *(p.read_text(encoding="utf-8") for p in (ROOT / "mrbook").rglob("*.py"))])
    module = {"scikit-image": "skimage", "pot": "ot", "pillow": "PIL"}
    used = lambda m: re.search(rf"^\s*(from {m}\b|import (.*, )?{m}\b)|(find_spec|import_module)\(.{m}\b", text, re.M)
    unused = [r for r in SETTINGS["requirements"].split() if normal(r) != "ipywidgets" and not used(module.get(normal(r), normal(r)))]  # ipywidgets: walkthroughs
    assert not unused, f"settings.ini requires what nothing imports: {unused}"


@pytest.mark.parametrize("module", MODULES)
def test_import(module): importlib.import_module(module)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | dict(OMP_NUM_THREADS="1"))


def test_the_command_imports_nothing_heavy():
    heavy = ["torch", "numpy", "scipy", "matplotlib", "nibabel", "monai", "papermill", "ot", "skimage"]
    assert run_python(f"import sys, mrbook.cli; print([m for m in {heavy} if m in sys.modules])").stdout.strip() == "[]"


def test_the_package_imports_nothing_heavy():
    assert run_python("import sys, mrbook; print('torch' in sys.modules, 'numpy' in sys.modules)").stdout.strip() == "False False"


def test_help_is_quick():
    "Seconds of the processor, so that a busy machine does not fail the check; the best of three."
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([Path(sys.executable).parent / "mrbook", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0, seconds


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    "A wheel built from a copy of the tree, without isolation when setuptools is here, so that no index is needed."
    to = tmp_path_factory.mktemp("wheel")
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"): shutil.copy2(ROOT / name, to / name)
    shutil.copytree(ROOT / "mrbook", to / "mrbook", ignore=shutil.ignore_patterns("__pycache__"))
    try: offline = ["--no-build-isolation"] if int(metadata.version("setuptools").split(".")[0]) >= 70 else []
    except metadata.PackageNotFoundError: offline = []
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *offline, "-w", to / "dist", to], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next((to / "dist").glob("*.whl"))


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
