"""`mrbook reconstruct` on files."""
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from mrbook import cli
from mrbook.methods.ot.ot import ScanConfig, acquire
from mrbook.mri.kspace import ifft2c
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.mri.sampling import sampling_mask
from mrbook.scans.volume import Scale, Volume, restack, slices, write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "K-space of six T2w slices at 2 mm, a quarter of it measured, and a T1w that lies a few pixels off."
    folder = tmp_path_factory.mktemp("ot"); a = phantom(7951, 2., head=True)
    t1, t2 = (Volume(image(a, Contrast(w, 3.))[:, :, 42:48], a.affine) for w in ("t1w", "t2w"))
    cut = {k: slices(v, scale=Scale(0., float(v.data.max()))) for k, v in dict(t1=t1, t2=t2).items()}
    scan = acquire(cut["t1"].data, cut["t2"].data, ScanConfig(apart=(3., 3.)), 3, together=True)
    mask = sampling_mask("random", tuple(scan.aux.shape[-2:]), .25, 1)
    np.save(folder / "kspace.npy", np.where(mask, scan.kspace, 0)); np.save(folder / "mask.npy", mask[0, 0, 0]); np.save(folder / "short.npy", mask[0, 0, 0, 1:])
    np.save(folder / "nothing.npy", np.zeros(scan.kspace.shape, np.complex64))
    write_volume(restack(slices(t1, scale=Scale(0., 1.)), scan.aux, Scale(0., 1.)), folder / "t1.nii.gz")
    np.save(folder / "truth.npy", cut["t2"].data)
    return folder


def reconstruct(*options): return cli.main(["reconstruct", "kspace.npy", "out.nii.gz", "--mask", "mask.npy", "--aux", "t1.nii.gz", "--device", "cpu", *options])


def test_shipped_network_reconstructs(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert reconstruct() == 0
    t1, out, facts = nib.load("t1.nii.gz"), nib.load("out.nii.gz"), json.loads((folder / "out.json").read_text())
    assert np.array_equal(t1.affine, out.affine) and out.shape == t1.shape and facts["consistency"] < 1e-5
    truth, zero = torch.from_numpy(np.load("truth.npy")), ifft2c(torch.from_numpy(np.load("kspace.npy"))).abs()
    made = slices(Volume(out.get_fdata().astype(np.float32), out.affine), scale=Scale(0., 1.)).data
    off = lambda x: float((x - truth).square().sum() / truth.square().sum())
    assert off(made) < 0.5 * off(zero), (off(made), off(zero))
    assert reconstruct() == 2 and "--force" in capsys.readouterr().err
    assert reconstruct("--force") == 0


@pytest.mark.parametrize("options, word", [
    (["kspace.npy", "--mask", "short.npy", "--aux", "t1.nii.gz"], "mask"), (["kspace.npy", "--mask", "none.npy", "--aux", "t1.nii.gz"], "none.npy"), (["nothing.npy", "--mask", "mask.npy", "--aux", "t1.nii.gz"], "zero"),
    (["none.npy", "--aux", "t1.nii.gz"], "none.npy"), (["t1.nii.gz", "--aux", "t1.nii.gz", "--weights", "nowhere"], "mrbook train ot")])
def test_refuses(folder, capsys, monkeypatch, options, word):
    monkeypatch.chdir(folder); before = sorted(folder.iterdir())
    assert cli.main(["reconstruct", options[0], "refused.nii.gz", "--device", "cpu", *options[1:]]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("mrbook: error: ") and err.count("\n") == 1 and word in err and sorted(folder.iterdir()) == before
