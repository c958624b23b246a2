"Modules that have moved: the old path gives the same module for one release, and says once where it is now."
import importlib, importlib.util, os, subprocess, sys, warnings
from pathlib import Path

import pytest

import mrbook

ROOT = Path(__file__).resolve().parents[1]
file_of = lambda name: ROOT / (name.replace(".", "/") + ".py")


@pytest.fixture
def fresh():
    "As if no old path had been imported yet."
    gone = {name: sys.modules.pop(name) for name in list(sys.modules) if mrbook.new_path(name)}
    yield
    sys.modules.update(gone)


@pytest.mark.parametrize("old, new", mrbook.MOVED.items(), ids=list(mrbook.MOVED))
def test_the_old_path_is_the_new_module(fresh, old, new):
    with pytest.warns(DeprecationWarning, match=new.replace(".", r"\.")) as said: found = importlib.import_module(old)
    assert found is importlib.import_module(new) and found.__name__ == new and found.__spec__.name == new
    assert len(said) == 1 and old in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importlib.import_module(old) is found, "said once"


@pytest.mark.parametrize("old, new", mrbook.MOVED.items(), ids=list(mrbook.MOVED))
def test_a_move_is_complete(old, new):
    package = file_of(old).with_suffix("") / "__init__.py"
    assert not file_of(old).exists() and not package.exists(), f"{old} is still there: export does not delete it"
    assert file_of(new).is_file() or (file_of(new).with_suffix("") / "__init__.py").is_file()
    assert mrbook.new_path(new) is None, "the table names the last place, not one on the way"


WAYS = {
    "import as": "import mrbook.methods.sinkhorn_lut as m; f = m.quantile_lut",
    "from import": "from mrbook.methods.sinkhorn_lut import quantile_lut as f",
    "from package": "from mrbook.methods import sinkhorn_lut; f = sinkhorn_lut.quantile_lut",
    "import": "import mrbook.methods.sinkhorn_lut; f = mrbook.methods.sinkhorn_lut.quantile_lut",
    "twice": "import mrbook.methods.sinkhorn_lut; from mrbook.methods.sinkhorn_lut import quantile_lut as f",
    "pickle": "import pickle; f = pickle.loads(b'cmrbook.methods.sinkhorn_lut\\nquantile_lut\\n.')",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_import(way, tmp_path):
    "In a script, where Python shows a DeprecationWarning without being asked."
    check = "from mrbook.generative.sinkhorn_lut import quantile_lut\nassert f is quantile_lut\n"
    (tmp_path / "script.py").write_text(f"{WAYS[way]}\n{check}")
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    warned = [l for l in done.stderr.splitlines() if "DeprecationWarning" in l]
    assert len(warned) == 1, done.stderr
    assert "script.py:1" in warned[0] and "import mrbook.generative.sinkhorn_lut" in warned[0]


def test_a_package_takes_its_modules_along(fresh, monkeypatch):
    monkeypatch.setitem(mrbook.MOVED, "mrbook.old_room", "mrbook.generative")
    monkeypatch.setitem(mrbook.MOVED, "mrbook.old_room.unet", "mrbook.nets.unet")
    with pytest.warns(DeprecationWarning):
        assert importlib.import_module("mrbook.old_room.tones") is importlib.import_module("mrbook.generative.tones")
        longest = importlib.import_module("mrbook.old_room.unet")
        assert longest is importlib.import_module("mrbook.nets.unet")
    for name in [n for n in sys.modules if n.startswith("mrbook.old_room")]: del sys.modules[name]


def test_what_never_was_is_still_an_error():
    with pytest.raises(ModuleNotFoundError): importlib.import_module("mrbook.methods.sinkhorn_lut_old")
    assert importlib.util.find_spec("mrbook.generative.sinkhorn_lut").origin.endswith("sinkhorn_lut.py")
