"""What `make test` runs: notebooks clean, library in sync, every notebook's inline tests, and this folder's pytest files.

Prints what failed, and as its last line 'N passed, N failed'. Data cells of the notebooks run too when MRBOOK_DATA names a folder.
  python tests/run_all.py                      everything
  python tests/run_all.py --only metrics       the jobs whose name contains a word
"""
import argparse, hashlib, json, multiprocessing, os, re, shutil, signal, subprocess, sys, tempfile, time, warnings
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
ENV = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONUNBUFFERED="1", OMP_WAIT_POLICY="PASSIVE")
IMPORTED = ["torch", "matplotlib.pyplot", "nibabel", "scipy.ndimage", "scipy.optimize", "skimage", "accelerate", "h5py", "typer", "pytest", "nbdev.test", "fastcore.test"]
FORKS = multiprocessing.get_context("forkserver")  # a process that has imported the packages; each job is a copy of it


@dataclass
class Result:
    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.
    text: str = ""  # what to show of a failure


def command(args, limit, cwd=ROOT, env=ENV):
    "Run a command in a process group of its own; kill the group at the limit. Returns (exit code or None at the limit, output)."
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        p = subprocess.Popen([str(a) for a in args], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try: code = p.wait(limit)
        except BaseException as e:
            os.killpg(p.pid, signal.SIGKILL); p.wait()
            if not isinstance(e, subprocess.TimeoutExpired): raise
            code = None
        out.seek(0)
        return code, out.read()


def _copy(out, job, args):
    "In the copy: its own process group, output into a file."
    os.setsid()
    for fd, name, how in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY | os.O_APPEND), (2, out, os.O_WRONLY | os.O_APPEND)): os.dup2(os.open(name, how), fd)
    os.chdir(ROOT)
    sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() != ROOT / "tests")]
    sys.exit(job(*args))


def forked(job, args, limit):
    "Like `command`, for a function of this file: it begins with the packages imported, which takes 3 s in a new process."
    FORKS.set_forkserver_preload(IMPORTED)
    with tempfile.NamedTemporaryFile("r", errors="replace") as out:
        p = FORKS.Process(target=_copy, args=(out.name, job, args)); p.start(); p.join(limit)
        code = p.exitcode
        if code is None:
            os.killpg(p.pid, signal.SIGKILL); p.join()
        return code, out.read()


def digests(folder, patterns):
    "Path -> hash of the content, below a folder."
    files = {f for p in patterns for f in folder.rglob(p) if f.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(f.parts)}
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


def differences(before, after):
    "What changed between two digests, one line each."
    return [f"  {'added' if k not in before else 'removed' if k not in after else 'changed'}: {k}" for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k)]


def copy_tree(to):
    "The part of the working tree that nbdev reads and writes, elsewhere, so that a check cannot change the tree."
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.safetensors")
    for name in ("nbs", "mrbook"): shutil.copytree(ROOT / name, to / name, ignore=skip)
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md"): shutil.copy2(ROOT / name, to / name)


def unchanged(name, tool, patterns, remedy, limit=240):
    "Run an nbdev tool on a copy; it passes when it changes nothing."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder); copy_tree(copy)
        before = digests(copy, patterns)
        code, out = command([BIN / tool], limit, cwd=copy, env=ENV | dict(PYTHONPATH=str(copy)))
        changed = differences(before, digests(copy, patterns))
    if code is None: return Result(name, failed=1, text=f"{tool} took longer than {limit} s")
    if code: return Result(name, failed=1, text=out)
    return Result(name, failed=1, text="\n".join([f"{tool} would change the tree; run {remedy} and commit:", *changed])) if changed else Result(name, passed=1)


def clean(): return unchanged("nbdev_clean changes nothing", "nbdev_clean", ["*.ipynb"], "nbdev_clean")


def export(): return unchanged("nbdev_export changes nothing", "nbdev_export", ["mrbook/**/*.py", "mrbook/*.py"], "nbdev_export")


def orphans():
    "Every module comes from a notebook: export never deletes one whose notebook is gone."
    code = "\n".join("".join(c["source"]) for nb in notebooks(all=True) for c in json.loads(nb.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
    known = {f"{m.replace('.', '/')}.py" for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", code, re.M)} | {"_modidx.py"}
    found = {str(p.relative_to(ROOT / "mrbook")) for p in (ROOT / "mrbook").rglob("*.py") if p.name != "__init__.py"}
    text = [f"  no notebook exports mrbook/{m}" for m in sorted(found - known)] + [f"  mrbook/{m} is missing: run nbdev_export" for m in sorted(known - found)]
    return Result("every module has its notebook", failed=1, text="\n".join(text)) if text else Result("every module has its notebook", passed=1)


def style():
    "ruff, with the rules of pyproject.toml."
    code, out = command([BIN / "ruff", "check", "--no-cache", "--output-format", "concise"], 120)
    return Result("ruff finds nothing", failed=1, text=out) if code else Result("ruff finds nothing", passed=1)


def notebooks(all=False):
    "The notebooks whose cells are tests; studies are run by `make reproduce` and checked in test_sync.py."
    found = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if not p.name.startswith((".", "_")) and ".ipynb_checkpoints" not in p.parts]
    return found if all else [p for p in found if "studies" not in p.parts]


def flags():
    "Cells that are normally skipped: those that need data run when there are data."
    return ["data"] if Path(os.environ.get("MRBOOK_DATA") or "/nonexistent").is_dir() else []


def test_cells(path, *kinds):
    "In a copy: the inline tests of one notebook; a deprecation that our own code causes is an error."
    from nbdev.test import nbdev_test
    for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("error", category=kind, module=r"(__main__|mrbook)\b")
    nbdev_test(str(path), " ".join(kinds), n_workers=0)


def test_file(*args):
    "In a copy: pytest."
    import pytest
    return int(pytest.main([str(a) for a in args]))


def notebook(path, limit):
    "The inline tests of one notebook, in a process of their own."
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    code, out = forked(test_cells, (path, *flags()), limit)
    if code is None: return Result(name, failed=1, text=f"stopped after {limit} s: a notebook's tests must be quick, use `#| slow` for the rest\n{out[-2000:]}")
    if code or "Success." not in out: return Result(name, failed=1, text=out[-6000:])
    return Result(name, passed=1)


def pytests(path, limit):
    "One file of this folder; its tests are counted one by one."
    name = str(path.relative_to(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code, out = forked(test_file, (path, "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", f"--junit-xml={report}"), limit)
        if code is None: return Result(name, failed=1, text=f"stopped after {limit} s\n{out[-4000:]}")
        if not report.exists(): return Result(name, failed=1, text=out[-6000:])
        suite = next(ElementTree.parse(report).iter("testsuite"))
    bad, skipped = int(suite.get("failures")) + int(suite.get("errors")), int(suite.get("skipped"))
    good = int(suite.get("tests")) - bad - skipped
    if code not in (0, 5) and not bad: bad = 1
    return Result(name, good, bad, skipped, text=out[-8000:] if bad else "")


def timed(job):
    start = time.perf_counter()
    try: r = job()
    except Exception as e: r = Result(getattr(job, "__name__", "job"), failed=1, text=f"{type(e).__name__}: {e}")
    r.seconds = time.perf_counter() - start
    mark = "FAILED" if r.failed else "ok"
    skipped = f", {r.skipped} skipped" if r.skipped else ""
    print(f"{mark:>6}  {r.seconds:6.1f} s  {r.name} ({r.passed + r.failed} checked{skipped})", flush=True)
    return r


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the jobs whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--limit", type=int, default=240, help="seconds for one notebook or one test file")
    a = parser.parse_args()
    os.environ.update(ENV)
    files = [p for p in sorted((ROOT / "tests").glob("test_*.py"))]
    jobs = [(p.name, lambda p=p: pytests(p, a.limit)) for p in files] + [(f.__name__, f) for f in (clean, export, orphans, style)]
    jobs += [(str(p.relative_to(ROOT)), lambda p=p: notebook(p, a.limit)) for p in sorted(notebooks(), key=lambda p: -p.stat().st_size)]
    start = time.perf_counter()
    with ThreadPoolExecutor(max(1, a.jobs)) as pool: results = list(pool.map(timed, [job for name, job in jobs if a.only in name]))
    for r in results:
        if r.failed: print(f"\n{'=' * 20} {r.name}\n{r.text.strip()}")
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"\n{time.perf_counter() - start:.0f} s; slowest: " + ", ".join(f"{r.name} {r.seconds:.0f} s" for r in sorted(results, key=lambda r: -r.seconds)[:5]))
    if not results: print(f"nothing to test is called '{a.only}'"); failed = 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__": sys.exit(main())
