"""`mrbook train fgsb` and `mrbook synthesize` on files."""
import json

import nibabel as nib
import numpy as np
import pytest

from mrbook import cli
from mrbook.mri.synthesis_tasks import task_subject
from mrbook.mri.volumes import write_volume


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
    assert json.loads((folder / "drawn.json").read_text())["to"] == "t2w"
