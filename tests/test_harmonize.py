"""`mrbook harmonize` on files: what it refuses, what it keeps."""
import gzip, json

import nibabel as nib
import numpy as np
import pytest

from mrbook import cli
from mrbook.mri.phantom import phantom
from mrbook.cohorts.travellers import AVANTO, session
from mrbook.scans.volume import write_volume

WAY = ["--from", "1.5T", "--to", "3T", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harmonize")
    raw, _ = session(phantom(4104, 4.), AVANTO)
    write_volume(raw.replace(affine=raw.affine @ np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.]])), folder / "scan.nii.gz")
    return folder


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mrbook: error: ") and err.count("\n") == 1, (out, err)
    return err


@pytest.mark.parametrize("options, word", [
    ([], "--from"), (["--from", "1.5T"], "--to"), (["--from", "3T", "--to", "3T"], "nothing to harmonize"), (["--from", "7T", "--to", "3T"], "7T"),
    ([*WAY, "--steps", "0"], "--steps"), ([*WAY, "--samples", "0"], "--samples"), ([*WAY, "--samples", "2", "--sample"], "not both"), ([*WAY, "--uncertainty", "sd.nii.gz"], "--samples 4"),
    ([*WAY, "--head", "maybe"], "maybe"), ([*WAY, "--samples", "2", "--uncertainty", "sd.png"], ".nii")])
def test_a_wrong_option(folder, capsys, monkeypatch, options, word):
    monkeypatch.chdir(folder); before = sorted(folder.iterdir())
    assert cli.main(["harmonize", "scan.nii.gz", "out.nii.gz", *options]) == 2
    assert word in one_line(capsys) and sorted(folder.iterdir()) == before


def test_output_and_uncertainty_are_two_files(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["harmonize", "scan.nii.gz", "out.nii.gz", *WAY, "--samples", "2", "--uncertainty", "out.nii.gz"]) == 2
    assert "same file" in one_line(capsys)


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "zeros", "nan", "four", "flat"])
def test_an_input_that_cannot_be_used(tmp_path, capsys, kind):
    path, shape = tmp_path / "in.nii.gz", dict(four=(8, 8, 8, 2), flat=(64, 64, 1)).get(kind, (16, 16, 16))
    data = np.full(shape, np.nan) if kind == "nan" else np.random.default_rng(0).random(shape) * (kind != "zeros")
    if kind != "missing": nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), path)
    if kind == "text": path.write_bytes(gzip.compress(b"this is no image"))
    if kind == "cut": path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    before = sorted(tmp_path.iterdir())
    assert cli.main(["harmonize", str(path), str(tmp_path / "out.nii.gz"), *WAY]) == 2
    one_line(capsys)
    assert sorted(tmp_path.iterdir()) == before


def test_for_real(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["harmonize", "scan.nii.gz", "real.nii.gz", *WAY, "--steps", "3", "--samples", "2", "--uncertainty", "sd.nii.gz"]) == 0
    source, out, sd = (nib.load(f) for f in ("scan.nii.gz", "real.nii.gz", "sd.nii.gz"))
    assert np.array_equal(out.affine, source.affine) and out.shape == source.shape == sd.shape and out.get_data_dtype() == np.float32
    x = out.get_fdata(); assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    facts = json.loads((folder / "real.json").read_text())
    assert facts["target_scanner"] == "3T" and facts["samples"] == 2 and facts["head"] is True and len(facts["sha256"]) == 64
    again = ["harmonize", "scan.nii.gz", "real.nii.gz", *WAY, "--steps", "3"]
    capsys.readouterr()
    assert cli.main(again) == 2 and "--force" in one_line(capsys)
    for name, more in (("likely", []), ("drawn", ["--sample"]), ("same", ["--sample"])): assert cli.main(["harmonize", "scan.nii.gz", f"{name}.nii.gz", *WAY, "--steps", "3", *more]) == 0
    likely, drawn, same = (nib.load(f"{n}.nii.gz").get_fdata() for n in ("likely", "drawn", "same"))
    assert np.array_equal(drawn, same) and not np.array_equal(drawn, likely)
    facts = json.loads((folder / "drawn.json").read_text()); assert facts["temperature"] == 1 and facts["shared_noise"] == 0.5


@pytest.mark.parametrize("options, word", [
    (["nowhere", "-o", "own", "--minutes", "1", "--device", "cpu"], "nowhere is not a folder"), (["nowhere", "-o", "own"], "--minutes"), (["nowhere", "-o", "own", "--steps", "0"], "--steps"),
    (["nowhere", "-o", "own", "--steps", "1", "--marks", "3T"], "--marks"), (["nowhere", "-o", "own", "--steps", "1", "--preset", "huge"], "huge")])
def test_training_refuses(tmp_path, capsys, monkeypatch, options, word):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "harmonize", *options]) == 2
    assert word in one_line(capsys) and not list(tmp_path.iterdir())
