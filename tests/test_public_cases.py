"""Cases made after public bug reports of other tools: what the field of view, z-scores, orientation, masks and fine pixels do to the commands."""
import json

import nibabel as nib
import numpy as np
import pytest

from mrbook import cli
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.scans.volume import Volume, resample_like

COMMANDS = {"enhance": ("t2w", .2, ["--contrast", "t2w", "--steps", "5"]), "synthesize": ("t1w", 3., ["--to", "t2w"]),
            "harmonize": ("t1w", 1.5, ["--from", "1.5T", "--to", "3T", "--steps", "1"]), "translate": ("t1w", .064, ["--contrast", "t1w"])}


def brain(weighting, field, spacing=2., noise=.01): # intensities of a scanner, 0 outside the brain
    a = phantom(9100, spacing); x = image(a, Contrast(weighting, field), noise=noise, bias=.03, clip=False) * 1000
    return (x * a.brain).astype(np.float32), a.affine, a.brain


def save(x, affine, path): nib.save(nib.Nifti1Image(x, affine), path)


def answer(command, source, target, *more):
    assert cli.main([command, str(source), str(target), *COMMANDS[command][2], *more, "--device", "cpu"]) == 0
    return nib.load(target).get_fdata(dtype=np.float32)


def slab(command, x, n=6): # some slices in the plane of the network, and where they begin
    return (x[44:44 + n], [44, 0, 0]) if command == "harmonize" else (x[:, :, 44:44 + n], [0, 0, 44])


def shifted(affine, by):
    out = affine.copy(); out[:3, 3] += out[:3, :3] @ by
    return out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_field_of_view_does_not_matter(command, tmp_path):
    weighting, field, _ = COMMANDS[command]; x, A, m = brain(weighting, field, noise=.02); out = {}
    (x, start), m, level = slab(command, x, 8), slab(command, m, 8)[0], -300
    # beside zeros: more on one side than on the other, and around them a border of another value, as some viewers write it
    for name, (a, b) in {"192": (0, 0), "320": (32, 32), "aside": (5, 60)}.items():
        pad = [(0, 0) if s else (a, b) for s in start]; inner = tuple(slice(None) if s else slice(a, a + n) for s, n in zip(start, x.shape))
        data = np.pad(x, pad) if name != "aside" else np.pad(np.where(m, x, level), pad, constant_values=level)
        save(data.astype(np.float32), shifted(A, [s or -a for s in start]), tmp_path / f"in_{name}.nii.gz")
        out[name] = answer(command, tmp_path / f"in_{name}.nii.gz", tmp_path / f"out_{name}.nii.gz")[inner]
    for name in ("320", "aside"): assert np.abs(out[name] - out["192"])[m].mean() < 0.002, name
    if command in ("enhance", "synthesize"):
        truth = slab(command, brain("t2w", 3.)[0], 8)[0]
        near = [np.corrcoef(out[fov][m], truth[m])[0, 1] for fov in ("192", "320")]; assert abs(near[1] - near[0]) < 0.01 and near[1] > (0.4 if command == "enhance" else 0.85)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_z_scored_brain(command, tmp_path):
    weighting, field, _ = COMMANDS[command]; x, A, m = brain(weighting, field); x, start = slab(command, x); A, m = shifted(A, start), x > 0
    forms = dict(raw=x, z=np.where(m, (x - x[m].mean()) / x[m].std(), 0), hundred=np.where(m, 100 + 15 * (x - x[m].mean()) / x[m].std(), 0))
    out = {}
    for name, data in forms.items():
        save(data.astype(np.float32), A, tmp_path / f"{name}.nii.gz"); out[name] = answer(command, tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_out.nii.gz")
        assert json.loads((tmp_path / f"{name}_out.json").read_text())["notes"] == []
    apart = lambda name: float(np.abs(out[name] - out["raw"])[m].mean()); limit = 0.003
    if command == "enhance": # its sampler enlarges rounding. Measured: other units change 0.0097 and 0.0103, seeds 1, 2, 3 change 0.038 to 0.039, so 0.27 of it
        out["seed"] = answer(command, tmp_path / "raw.nii.gz", tmp_path / "seed_out.nii.gz", "--seed", "1"); limit = 0.3 * apart("seed")
    for name in ("z", "hundred"): assert apart(name) < limit, (name, apart(name), limit)
    assert not out["z"][:, :4].any()


@pytest.mark.parametrize("command", ["synthesize", "translate", "harmonize"])
def test_vertex_and_medulla(command, tmp_path):
    weighting, field, _ = COMMANDS[command]; x, A, m = brain(weighting, field, 4.)
    x = np.pad(x, ((30, 30), (30, 30), (0, 0))); save(x, shifted(A, [-30, -30, 0]), tmp_path / "in.nii.gz")
    out = answer(command, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    assert np.array_equal(out.any((0, 1)), x.any((0, 1)))


@pytest.mark.parametrize("kind, said", [("mask", "two values only"), ("labels", "map of labels"), ("smooth", "smoothed mask")])
@pytest.mark.parametrize("command", [*COMMANDS, "reconstruct"])
def test_a_mask_is_no_scan(command, kind, said, tmp_path, capsys):
    a = phantom(9100, 4.); soft = resample_like(Volume(a.brain.astype(np.float32), a.affine), Volume(np.zeros(np.array(a.shape) - 3), a.affine @ np.diag([1.05, 1.05, 1.05, 1])), 1).data
    save(dict(mask=a.brain.astype(np.uint8), labels=a.labels.astype(np.int16) * 10, smooth=soft)[kind], a.affine, tmp_path / "mask.nii.gz"); np.save(tmp_path / "k.npy", np.ones((4, 8, 8), complex))
    given = ["k.npy", "out.nii.gz", "--aux", "mask.nii.gz"] if command == "reconstruct" else ["mask.nii.gz", "out.nii.gz"]
    given = [str(tmp_path / g) if "." in g else g for g in given]
    assert cli.main([command, *given, *COMMANDS.get(command, ("", 0, []))[2], "--device", "cpu"]) == 2
    out, err = capsys.readouterr(); assert out == "" and err.count("\n") == 1 and said in err and not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_warning_becomes_a_note(command, tmp_path, capsys, monkeypatch):
    import warnings
    import mrbook.methods.translator as translator
    was = translator.frame_grid
    def loud(*a):
        warnings.warn("two\nlines", stacklevel=2)
        return was(*a)
    monkeypatch.setattr(translator, "frame_grid", loud)
    weighting, field, _ = COMMANDS[command]; x, A, _ = brain(weighting, field, 4.); x, start = slab(command, np.pad(x, 24), 3); save(x, shifted(A, start), tmp_path / "in.nii.gz")
    answer(command, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", *(["--steps", "1"] if command == "enhance" else []))
    out, err = capsys.readouterr(); assert "two lines" in json.loads((tmp_path / "out.json").read_text())["notes"] and out.count("note: two lines") == 1 and err == ""


@pytest.mark.parametrize("command", ["enhance", "synthesize"])
def test_fine_pixels_are_noted(command, tmp_path, capsys):
    weighting, field, _ = COMMANDS[command]; x, A, _ = brain(weighting, field); B = np.diag([.5, .5, 6., 1.]); B[:3, 3] = [-95, -127, 12]
    save(resample_like(Volume(x, A), Volume(np.zeros((380, 440, 2), np.float32), B)).data, B, tmp_path / "in.nii.gz")
    answer(command, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", *(["--steps", "2"] if command == "enhance" else []))
    notes = json.loads((tmp_path / "out.json").read_text())["notes"]; out, err = capsys.readouterr()
    assert len(notes) == 1 and "far outside the 1 to 4 mm" in notes[0] and out.count(notes[0]) == 1 and err == ""


@pytest.mark.parametrize("command", ["synthesize", "translate"])
def test_orientation_does_not_matter(command, tmp_path):
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
    weighting, field, _ = COMMANDS[command]; x, A, _ = brain(weighting, field); A = shifted(A, [0, 0, 44]); ras = nib.Nifti1Image(x[:, :, 44:48], A); out = {}
    for code in ("RAS", "LPS", "SLA"):
        nib.save(ras.as_reoriented(ornt_transform(io_orientation(A), axcodes2ornt(code))), tmp_path / f"{code}.nii.gz")
        answer(command, tmp_path / f"{code}.nii.gz", tmp_path / f"{code}_out.nii.gz"); made = nib.load(tmp_path / f"{code}_out.nii.gz")
        assert np.allclose(made.affine, nib.load(tmp_path / f"{code}.nii.gz").affine)
        out[code] = made.as_reoriented(ornt_transform(axcodes2ornt(code), axcodes2ornt("RAS"))).get_fdata()
    for code in ("LPS", "SLA"): assert np.abs(out[code] - out["RAS"]).max() < 1e-5
