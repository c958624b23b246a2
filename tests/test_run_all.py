"The driver of `make test`: a hung job is killed with its children, failures are counted, a tree that would change is noticed."
import sys, time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run_all


def test_a_hung_command_is_killed_with_its_children(tmp_path):
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(4); open(r\"{tmp_path / 'late'}\", \"w\")']); print('started', flush=True); time.sleep(60)"
    start = time.perf_counter()
    code, out = run_all.command([sys.executable, "-c", script], 2)
    assert code is None and "started" in out and time.perf_counter() - start < 20
    time.sleep(4)
    assert not (tmp_path / "late").exists()


def test_pytest_results_are_counted_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    path = tmp_path / "test_some.py"
    path.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2\n@pytest.mark.skip(reason='no')\ndef test_c(): pass\n@pytest.fixture\ndef broken(): raise OSError\ndef test_d(broken): pass\n")
    r = run_all.pytests(path, 120)
    assert (r.passed, r.failed, r.skipped) == (1, 2, 1) and "1 == 2" in r.text


def test_a_file_that_does_not_import_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    path = tmp_path / "test_some.py"; path.write_text("import nothing_of_this_name\n")
    assert run_all.pytests(path, 120).failed == 1


def test_differences_are_named():
    assert run_all.differences({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == ["  changed: b", "  removed: c", "  added: d"]


def test_a_job_that_raises_is_a_failure(capsys):
    def job(): raise RuntimeError("no disk")
    r = run_all.timed(job)
    assert (r.passed, r.failed) == (0, 1) and "no disk" in r.text and "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("value, expected", [("", []), ("/nonexistent/folder", []), (".", ["data"])])
def test_data_cells_run_where_data_are(monkeypatch, value, expected):
    monkeypatch.setenv("MRBOOK_DATA", value)
    assert run_all.flags() == expected


@pytest.mark.parametrize("code, ours", [("warnings.warn('old', DeprecationWarning)", True), ("import old_module; old_module.f()", False),
                                        ("import matplotlib.pyplot as plt; plt.subplots()[1].hist([1., 2.], 5, (0, 1), False)", True)])
def test_deprecations_of_our_own_code_are_errors(tmp_path, code, ours):
    "In a cell, not in somebody else's package."
    import json
    (tmp_path / "old_module.py").write_text("import warnings\ndef inner(): warnings.warn('old', DeprecationWarning, 2)\ndef f(): inner()\n")
    cell = dict(cell_type="code", execution_count=None, id="0", metadata={}, outputs=[], source=f"import warnings\n{code}")
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5)))
    result = run_all.notebook(path, 120)
    assert (result.failed, "Deprecat" in result.text) == (ours, ours), result.text
