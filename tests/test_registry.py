"""Every translator that ships is put through the same tests, and translators with a planted fault fail them."""
import os
from functools import lru_cache

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from mrbook.methods.files import read_source
from mrbook.registry import TRANSLATORS, Shipped, registry_scan
from mrbook.methods.translator import BothSides, Translator, Window
from mrbook.mri.physics import Contrast
from mrbook.scans.preprocess import head_mask, measured
from mrbook.scans.volume import Volume, VolumeError, percentile_window, read_volume, resample_like, write_volume

ROUNDING, SAME = 2e-5, 3e-3 # on a scale of 0 to 1: the same arithmetic in another order; a mean over the brain, where rounding may tip a threshold
SAMPLED = 4e-3 # the same mean for a sampler of few steps, which enlarges rounding: at most 0.0021 measured with other units; another seed changes 0.015 to 0.05


@lru_cache(None)
def scan_of(row): return registry_scan(row)


@lru_cache(None)
def answer_of(row): return row.build().translate_volume(scan_of(row)).data


def brain_of(row): return np.ones(scan_of(row).shape, bool) if row.head else measured(scan_of(row))


def off(a, b, where=None): return float(np.abs(a - b)[... if where is None else where].max())


def alike(a, b, where, row=None):
    far = np.abs(a - b)[where]; sampled = row is not None and row.random and row.across == 2
    return float(far.mean()) < (SAMPLED if sampled else SAME) and float((far > 0.03).mean()) < 0.03


def moved(volume, shift): # affine of a grid that begins `shift` voxels later
    affine = volume.affine.copy(); affine[:3, 3] += affine[:3, :3] @ shift
    return affine


# -- what must hold -----------------------------------------------------------------------------------------------------

def command_equals_method(row, place):
    write_volume(scan_of(row), place / "in.nii.gz")
    facts = row.run(place / "in.nii.gz", place / "out.nii.gz"); out = read_volume(place / "out.nii.gz")
    assert off(out.data, row.build().translate_volume(read_source(place / "in.nii.gz")).data) < ROUNDING
    assert facts["declared"] == row.build().declared() and len(facts["sha256"]) == 64 and facts["notes"] == []


def grid_is_kept(row, place):
    out = row.build().translate_volume(scan_of(row))
    assert out.shape == scan_of(row).shape and np.array_equal(out.affine, scan_of(row).affine) and out.data.dtype == np.float32
    assert np.isfinite(out.data).all() and out.data.min() >= 0 and out.data.max() <= 1 and out.data.max() > 0.3


def orientation_does_not_matter(row, place):
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
    image = nib.Nifti1Image(scan_of(row).data, scan_of(row).affine)
    for code in ("LAS", "PIR"):
        there = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(code)))
        out = row.build().translate_volume(Volume(there.get_fdata(dtype=np.float32), there.affine))
        back = nib.Nifti1Image(out.data, out.affine).as_reoriented(ornt_transform(axcodes2ornt(code), io_orientation(image.affine)))
        assert off(back.get_fdata(), answer_of(row)) < ROUNDING, code


def empty_space_does_not_matter(row, place):
    v = scan_of(row); pad = [(9, 14), (5, 30), (7, 0)]
    out = row.build().translate_volume(Volume(np.pad(v.data, pad), moved(v, [-9, -5, -7]))).data
    inner = out[9:-14, 5:-30, 7:]
    assert alike(inner, answer_of(row), brain_of(row))
    out[9:-14, 5:-30, 7:] = 0; assert not out.any() or row.head
    if row.head: return
    low, high = (f(np.argwhere(brain_of(row)), 0) for f in (np.min, np.max)); box = tuple(slice(a, b + 1) for a, b in zip(low, high))
    assert alike(row.build().translate_volume(Volume(v.data[box], moved(v, low))).data, answer_of(row)[box], brain_of(row)[box])


def intensities_may_be_scaled_and_shifted(row, place):
    v, m = scan_of(row), scan_of(row).data != 0; z = (v.data - v.data[m].mean()) / v.data[m].std()
    for data in (1000 * v.data, v.data + 700, z if row.head else np.where(m, z, 0)):
        out = row.build().translate_volume(v.replace(data=data.astype(np.float32)))
        assert alike(out.data, answer_of(row), brain_of(row), row) and not out.notes


def every_slice_is_answered(row, place):
    v = registry_scan(row, slices=slice(0, None)); end = np.flatnonzero(v.data.any(tuple(k for k in range(3) if k != row.across))) if not row.head else np.arange(40, 44)
    cut = tuple(slice(end[-3], None) if k == row.across else slice(None) for k in range(3))
    wide = Volume(np.pad(v.data[cut], [(0, 0) if k == row.across else (40, 40) for k in range(3)]), v.affine)
    out = row.build().translate_volume(wide).data; mask = head_mask(wide) if row.head else measured(wide)
    seen = lambda x: x.any(tuple(k for k in range(3) if k != row.across))
    area = mask.sum(tuple(k for k in range(3) if k != row.across)) * float(np.prod(wide.spacing)) / wide.spacing[row.across]
    assert seen(out)[area >= 40].all() and (row.head or not seen(out)[area == 0].any()) # mm^2: ten voxels; the tip of a brain may be black
    assert (out[mask] > 0).mean() > 0.5


def the_rim_is_kept(row, place):
    v = scan_of(row); fine = np.where(np.arange(3) == row.across, 1, 4)
    shape = tuple(np.array(v.shape) * fine); affine = v.affine @ np.diag([*1 / fine, 1]); affine[:3, 3] = v.affine[:3, 3] + v.affine[:3, :3] @ ((1 / fine - 1) / 2)
    grid = Volume(np.broadcast_to(np.float32(0), shape), affine)
    sharp = resample_like(v, grid, 0); out = row.build().translate_volume(sharp).data # pixels of 0.5 mm
    rim = lambda mask, n: mask & ~ndimage.binary_erosion(mask, iterations=n)
    fine_rim, coarse_rim = rim(measured(sharp), 8), rim(measured(v), 2) # 4 mm; of a head: of its field of view
    dark = lambda x: float((x < 0.01).mean())
    assert dark(answer_of(row)[coarse_rim]) < 0.5
    assert dark(out[fine_rim]) < dark(answer_of(row)[coarse_rim]) + 0.03
    assert abs(out[fine_rim].mean() - answer_of(row)[coarse_rim].mean()) < 0.1


def batches_do_not_matter(row, place):
    one, four = (row.build(batch_size=b).translate_volume(scan_of(row)).data for b in (1, 4))
    assert alike(one, four, brain_of(row))


def seeds_decide(row, place):
    assert np.array_equal(row.build().translate_volume(scan_of(row)).data, answer_of(row))
    if row.random and "temperature" not in vars(row.build()): # at temperature 0 there is one answer for every seed
        assert not np.array_equal(row.build(seed=1).translate_volume(scan_of(row)).data, answer_of(row))


def saving_keeps_all(row, place):
    method = row.build(); one = getattr(method, "method", method)
    options = {k: getattr(one, k) for k in ("steps", "config") if hasattr(one, k)}
    again = type(one).from_pretrained(one.save_pretrained(place / "kept"), **options)
    assert again.declared() == one.declared() and sorted(p.name for p in (place / "kept").iterdir()) == ["config.json", "model.safetensors"]
    again = BothSides(again) if one is not method else again
    assert alike(again.translate_volume(scan_of(row)).data, answer_of(row), brain_of(row))


def odd_slices_are_answered(row, place):
    v = registry_scan(row, slices=slice(40, 52) if row.across == 2 else slice(38, 50)); other = 2 - row.across
    def one(axis): # slice in the middle
        at = v.shape[axis] // 2; part = tuple(slice(at, at + 1) if k == axis else slice(None) for k in range(3))
        return Volume(v.data[part], moved(v, at * (np.arange(3) == axis)))
    thick = lambda axis, n: Volume(np.add.reduceat(v.data, np.arange(0, v.shape[axis], n), axis) / n, v.affine @ np.diag([*np.where(np.arange(3) == axis, n, 1), 1]))
    for odd in (one(row.across), thick(row.across, 3), thick(other, 3)): # one slice; 6 mm in the plane, and across it
        out = row.build().translate_volume(odd); mask = head_mask(odd) if row.head else measured(odd)
        assert out.data.shape == odd.shape and np.isfinite(out.data).all() and (out.data[mask] > 0).mean() > 0.6 and out.data[mask].std() > 0.02
        assert any("6 mm thick" in n for n in out.notes) == (odd.spacing[other] > 5), out.notes
    with pytest.raises(VolumeError, match=f"has 1 .* slices.*give a scan of {row.build().plane} slices"): row.build().translate_volume(one(other)) # seen from the side


def a_spot_stays_where_it_is(row, place):
    v = scan_of(row); at = [int(round(c)) for c in ndimage.center_of_mass(measured(v))]
    if row.across == 2: at[0] += 16
    else: at[1] += 20
    spot = sum((g - c)**2 for g, c in zip(np.ogrid[tuple(slice(n) for n in v.shape)], at)) <= 16; spot = spot & np.ones(v.shape, bool)
    level = np.percentile(v.data[measured(v)], 5 if v.data[spot].mean() > np.median(v.data[measured(v)]) else 95)
    change = np.abs(row.build().translate_volume(v.replace(data=np.where(spot, level, v.data).astype(np.float32))).data - answer_of(row))
    others = [np.flip(spot, k) for k in range(3) if k != row.across]
    assert all(change[spot].mean() > 2 * change[o & ~spot].mean() for o in others) and change[spot].mean() > 0.02


def wrong_masks_are_refused(row, place):
    v = scan_of(row); m = measured(v)
    for bad, why in ((np.zeros(v.shape), "empty"), (np.ones((3, 3, 3)), "shape"), (v, "two values")):
        with pytest.raises(VolumeError, match=why): row.build().translate_volume(v, bad)
    write_volume(v.replace(data=m.astype(np.float32) if not row.head else (v.data > 300).astype(np.float32)), place / "mask.nii.gz")
    with pytest.raises(VolumeError, match="two values only"): row.run(place / "mask.nii.gz", place / "none.nii.gz")
    assert not (place / "none.nii.gz").exists()
    if not row.head: assert off(row.build().translate_volume(v, m).data, answer_of(row)) < ROUNDING


PROPERTIES = (command_equals_method, grid_is_kept, orientation_does_not_matter, empty_space_does_not_matter, intensities_may_be_scaled_and_shifted, every_slice_is_answered,
    the_rim_is_kept, batches_do_not_matter, seeds_decide, saving_keeps_all, odd_slices_are_answered, a_spot_stays_where_it_is, wrong_masks_are_refused)


FOR_HEADS = (command_equals_method, empty_space_does_not_matter, intensities_may_be_scaled_and_shifted, odd_slices_are_answered) # the network is that of the brains


TWINS = "enhance t1w", "harmonize 1.5T", "synthesize t2w", "translate t1w"  # other weights in the code of their twins; MRBOOK_ALL=1 asks everything of them too


def asked(name, row): return PROPERTIES if os.environ.get("MRBOOK_ALL") or not (row.head or name in TWINS) else FOR_HEADS


@pytest.mark.parametrize("name, holds", [(n, p) for n, row in TRANSLATORS.items() for p in asked(n, row) if not row.head or p in FOR_HEADS], ids=lambda x: getattr(x, "__name__", x))
def test_shipped(name, holds, tmp_path):
    torch.set_num_threads(1)
    holds(TRANSLATORS[name], tmp_path)


# -- and what must fail -------------------------------------------------------------------------------------------------

class Same(Translator):
    window = Window(.5, 99.5, .1)
    def __init__(self, batch_size=4): self.batch_size = batch_size
    def translate(self, x, spacing=None): return x

class Mirrored(Same):
    def translate(self, x, spacing=None): return x.flip(-1)

class LostRim(Same):
    def finish(self, made, native, inside): return np.where(ndimage.binary_erosion(inside.mask, iterations=2), made, 0)

class OwnWindow(Same):
    def prepare(self, scans, inside):
        work = super().prepare([s.replace(data=percentile_window(s.data)[0]) for s in scans], inside)
        return work._replace(x=torch.where(work.x > 0, work.x * float((scans[0].data > 0).mean() * 3), work.x))

class LostSlice(Same):
    def translate(self, x, spacing=None): return x * (x.flatten(1).gt(0).float().mean(1) > .04)[:, None, None, None]

class BatchNorm(Same):
    def translate(self, x, spacing=None): return torch.cat([torch.cat([p[:1] * .8, p[1:]]) for p in x.split(self.batch_size)]) # the first of a batch is darker


def planted(method): return Shipped(lambda **o: method(**o), lambda *a, **o: {}, Contrast("t1w", 3.))


@pytest.mark.parametrize("holds", [p for p in PROPERTIES if p not in (command_equals_method, saving_keeps_all, wrong_masks_are_refused)], ids=lambda p: p.__name__)
def test_a_translator_that_changes_nothing_passes(holds, tmp_path): holds(planted(Same), tmp_path)


@pytest.mark.parametrize("method, holds", [(Mirrored, a_spot_stays_where_it_is), (LostRim, the_rim_is_kept), (OwnWindow, intensities_may_be_scaled_and_shifted),
    (OwnWindow, empty_space_does_not_matter), (LostSlice, every_slice_is_answered), (BatchNorm, batches_do_not_matter)], ids=lambda x: x.__name__)
def test_a_planted_fault_is_found(method, holds, tmp_path):
    with pytest.raises(AssertionError): holds(planted(method), tmp_path)
