"""`mrbook translate` and `mrbook train unsb` on files."""
import json

import nibabel as nib
import numpy as np
import pytest

from mrbook import cli
from mrbook.scans.preprocess import measured
from mrbook.cohorts.portable import acquired, phantom_person
from mrbook.scans.volume import Volume, write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A thick 64 mT scan whose axes are not those of RAS, and the same person at 3 T."
    folder = tmp_path_factory.mktemp("unsb"); person = phantom_person(6950, weightings=("t1w",))
    thick = acquired(person.low["t1w"], (2., 2., 5.)); thick = thick.replace(data=np.where(thick.data > 0.05, thick.data, 0).astype(np.float32))
    turned = Volume(np.flip(thick.data, 0).copy(), thick.affine @ np.diag([-1., 1, 1, 1]) @ np.array([[1, 0, 0, 1 - thick.shape[0]], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.]]))
    write_volume(turned, folder / "scan.nii.gz")
    for side, scan in (("low", person.low["t1w"]), ("high", phantom_person(6951, low=False, weightings=("t1w",)).high["t1w"])):
        (folder / side).mkdir(); write_volume(scan, folder / side / f"{side}.nii.gz")
    return folder


def test_shipped_network_translates(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["translate", "scan.nii.gz", "out.nii.gz", "--from", "64mT", "--to", "3T", "--contrast", "t1w", "--device", "cpu"]) == 0
    scan, out, facts = nib.load("scan.nii.gz"), nib.load("out.nii.gz"), json.loads((folder / "out.json").read_text())
    assert np.array_equal(scan.affine, out.affine) and out.shape == scan.shape and out.get_data_dtype() == np.float32
    a, b = scan.get_fdata(), out.get_fdata(); inside = measured(Volume(a, scan.affine)) # fluid of exactly 0 is brain
    assert np.isfinite(b).all() and not b[~inside].any() and np.corrcoef(a[inside], b[inside])[0, 1] > 0.6 and not np.allclose(a, b, atol=0.02)
    assert facts["from_field"] == "64mT" and "2 mm in all directions" in facts["interpolation"] and max(facts["voxel_mm"]) == 5
    assert cli.main(["translate", "scan.nii.gz", "out.nii.gz", "--device", "cpu"]) == 2 and "--force" in capsys.readouterr().err


def test_fine_grid(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["translate", "scan.nii.gz", "fine.nii.gz", "--fine", "--device", "cpu"]) == 0
    assert np.allclose(nib.load("fine.nii.gz").header.get_zooms(), 2, atol=0.05)


@pytest.mark.parametrize("options, word", [(["--from", "1.5T"], "harmonize"), (["--to", "7T"], "7T"), (["--contrast", "pd"], "pd"), (["--weights", "nowhere"], "mrbook train unsb")])
def test_refuses(folder, capsys, monkeypatch, options, word):
    monkeypatch.chdir(folder); before = sorted(folder.iterdir())
    assert cli.main(["translate", "scan.nii.gz", "refused.nii.gz", "--device", "cpu", *options]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("mrbook: error: ") and err.count("\n") == 1 and word in err and sorted(folder.iterdir()) == before


def test_own_weights(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["train", "unsb", "--source", "low", "--target", "high", "-o", "own", "--preset", "tiny", "--teacher-steps", "1", "--steps", "3", "--device", "cpu"]) == 0
    assert "3 steps" in capsys.readouterr().out
    assert cli.main(["translate", "scan.nii.gz", "own.nii.gz", "--weights", "own", "--device", "cpu"]) == 0
