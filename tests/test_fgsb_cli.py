"""`mrbook train fgsb` and `mrbook synthesize` on files."""
import json

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from mrbook import cli
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.scans.preprocess import measured
from mrbook.cohorts.missing_contrast import task_subject
from mrbook.scans.volume import read_volume, write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("fgsb"), ["subject,source,target,split"]
    for k, (seed, split) in enumerate([(5000, "train"), (5500, "val")]):
        pair = task_subject("t2w", seed, spacing=4.)
        for name in ("source", "target"): write_volume(getattr(pair, name), folder / f"{k}_{name}.nii.gz")
        lines.append(f"s{k},{k}_source.nii.gz,{k}_target.nii.gz,{split}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mrbook: error: "), (out, err)
    return err


@pytest.mark.parametrize("options, word", [
    (["--pairs", "none.csv", "--minutes", "1"], "none.csv"), (["--pairs", "pairs.csv"], "--minutes"), (["--pairs", "pairs.csv", "--steps", "1", "--to", "pet"], "pet"),
    (["--pairs", "pairs.csv", "--steps", "1", "--prior", "mask"], "column lesion"), (["--pairs", "pairs.csv", "--steps", "1", "--prior", "magic"], "magic")])
def test_training_refuses(folder, capsys, monkeypatch, options, word):
    monkeypatch.chdir(folder); before = sorted(folder.iterdir())
    assert cli.main(["train", "fgsb", "-o", "refused", "--device", "cpu", *options]) == 2
    assert word in one_line(capsys) and sorted(folder.iterdir()) == before


def test_train_then_synthesize(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["train", "fgsb", "--pairs", "pairs.csv", "-o", "own", "--to", "t2w", "--preset", "tiny", "--steps", "2", "--device", "cpu"]) == 0
    assert "2 steps" in capsys.readouterr().out
    arguments = ["synthesize", "0_source.nii.gz", "drawn.nii.gz", "--to", "t2w", "--device", "cpu"]
    assert cli.main([*arguments, "--weights", "nowhere"]) == 2 and "mrbook train fgsb" in one_line(capsys)
    assert cli.main([*arguments, "--weights", "own"]) == 0
    source, drawn = nib.load("0_source.nii.gz"), nib.load("drawn.nii.gz")
    assert np.array_equal(source.affine, drawn.affine) and drawn.shape == source.shape and np.isfinite(drawn.get_fdata()).all()
    facts = json.loads((folder / "drawn.json").read_text()); assert facts["to"] == "t2w" and facts["both_sides"] is True
    assert cli.main([*arguments, "--weights", "own", "--one-side", "--force"]) == 0
    assert json.loads((folder / "drawn.json").read_text())["both_sides"] is False and not np.array_equal(nib.load("drawn.nii.gz").get_fdata(), drawn.get_fdata())


def test_shipped_networks_draw(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    for to in ("t2w", "flair"):
        assert cli.main(["synthesize", "0_source.nii.gz", f"shipped_{to}.nii.gz", "--to", to, "--device", "cpu"]) == 0
    source, t2w, flair = (nib.load(f"{n}.nii.gz").get_fdata() for n in ("0_source", "shipped_t2w", "shipped_flair"))
    brain = source > 0
    air = ~measured(read_volume("0_source.nii.gz")); assert (brain & air).sum() == 0 and (~air).sum() < 1.001 * binary_fill_holes(brain).sum() # measured: 2 voxels of 21966 more
    assert not t2w[air].any() and not flair[air].any() and t2w[brain].std() > 0.05 and flair[brain].std() > 0.03
    dark, bright = np.quantile(source[brain], (0.05, 0.8)) # CSF and white matter of T1w
    csf, wm = brain & (source < dark), brain & (source > bright)
    assert t2w[csf].mean() > t2w[wm].mean() and flair[csf].mean() < flair[wm].mean(), "fluid is bright in T2w and dark in FLAIR"


def test_a_head_is_noted(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    a = phantom(9107, 4., head=True); nib.save(nib.Nifti1Image(image(a, Contrast("t1w", 3.), noise=.01), a.affine), "head.nii.gz")
    assert cli.main(["synthesize", "head.nii.gz", "head_out.nii.gz", "--to", "flair", "--device", "cpu"]) == 0
    assert "strip it first" in capsys.readouterr().out
