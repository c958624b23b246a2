"""Properties that every reconstructor has, faults that must not pass, and k-space in the forms in which people have it."""
import h5py
import numpy as np
import pytest
import torch

from mrbook.methods.ot.baselines import TotalVariation, ZeroFilling
from mrbook.methods.ot.files import reconstruct_file
from mrbook.methods.ot.ot import OTRecon, ScanConfig, acquire
from mrbook.methods.reconstructor import Layout, as_scan, check_layout, mending, resized
from mrbook.mri.kspace import KSpaceError, fft2c, ifft2c
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.mri.sampling import sampling_mask
from mrbook.scans.volume import Scale, Volume, restack, slices, write_volume

METHODS = {"ot": lambda batch: OTRecon.from_pretrained("ot", batch_size=batch), "zero-filled": lambda batch: ZeroFilling(), "tv": lambda batch: TotalVariation(steps=3)}


class Case:
    "Six T2w slices of a head at 2 mm, a quarter measured, and a T1w some pixels off."
    def __init__(self):
        a = phantom(7952, 2., head=True)
        t1, self.t2 = (Volume(image(a, Contrast(w, 3.))[:, :, 42:66:4], a.affine) for w in ("t1w", "t2w"))
        cut = [slices(v, scale=Scale(0., float(v.data.max()))).data for v in (t1, self.t2)]
        scan = acquire(*cut, ScanConfig(apart=(3., 3.)), 3, together=True)
        self.size, self.truth, self.full = tuple(cut[0].shape[-2:]), cut[1], scan.kspace
        self.mask = sampling_mask("random", self.size, .25, 1)
        self.k = torch.where(self.mask, self.full, 0)
        self.t1 = restack(slices(t1, scale=Scale(0., 1.)), scan.aux, Scale(0., 1.))


@pytest.fixture(scope="module")
def case(): return Case()


@pytest.fixture(scope="module", params=METHODS)
def method(request): return METHODS[request.param](4)


@pytest.fixture(scope="module")
def made(method, case): return method.reconstruct_volume(case.k, case.mask, case.t1)


def far(a, b): return float(np.abs(a - b).max() / np.abs(b).max())


def test_grid_and_affine(method, made, case):
    assert made.shape == case.t1.shape and np.array_equal(made.affine, case.t1.affine) and made.data.min() >= 0


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_unit_does_not_matter(method, made, case, unit):
    assert far(method.reconstruct_volume(case.k * unit, case.mask, case.t1).data / unit, made.data) < 2e-3


def test_measured_samples_are_kept(method, case):
    out = method.run(as_scan(case.k, case.mask, case.t1))
    inside = case.mask.expand_as(case.k)
    if method.hard: assert torch.equal(out.kspace[inside].to(torch.complex64), case.k[inside]) and out.changed < 1e-4
    else: assert 0 < out.changed < .3


def test_same_bits_twice(method, made, case):
    assert np.array_equal(method.reconstruct_volume(case.k, case.mask, case.t1).data, made.data)


def test_batch_size_does_not_matter(case):
    one, four = (METHODS["ot"](n).reconstruct_volume(case.k, case.mask, case.t1).data for n in (1, 4))
    assert far(one, four) < 1e-3


def test_orientation_of_the_t1_does_not_matter(method, made, case):
    flip = np.diag([-1., 1, 1, 1]); flip[0, 3] = case.t1.shape[0] - 1
    las = Volume(case.t1.data[::-1].copy(), case.t1.affine @ flip)
    assert far(method.reconstruct_volume(case.k, case.mask, las).data[::-1], made.data) < 1e-5


@pytest.mark.parametrize("change", [lambda d: 1000 * d, lambda d: (d - d.mean()) / d.std()])
def test_units_of_the_t1_do_not_matter(method, made, case, change):
    assert far(method.reconstruct_volume(case.k, case.mask, case.t1.replace(data=change(case.t1.data).astype(np.float32))).data, made.data) < .05


def test_zeros_around_the_t1_are_refused(method, case):
    with pytest.raises(KSpaceError, match="resample the T1w to the grid of the scan"):
        method.reconstruct_volume(case.k, case.mask, case.t1.replace(data=np.pad(case.t1.data, ((4, 4), (4, 4), (0, 0)))))


def test_a_frame_of_zeros_inside_the_grid_does_not_matter(method, made, case):
    inner = np.zeros(case.t1.shape, np.float32); inner[6:-6, 6:-6] = case.t1.data[6:-6, 6:-6]
    out = method.reconstruct_volume(case.k, case.mask, case.t1.replace(data=inner)); assert out.notes == made.notes
    change = np.abs(out.data - made.data) / made.data.max(); assert change.mean() < .005 and change.max() < .1 # measured with the network: 0.058 at most


@pytest.mark.parametrize("by, word", [(.8, "larger than in the T1w"), (1.25, "smaller than in the T1w"), (1.05, None)])
def test_another_field_of_view_is_noted(case, by, word): # as many pixels, of another size
    said = check_layout(case.k, case.mask, resized(slices(case.t1, scale=Scale(0., float(case.t1.data.max()))).data, by))
    assert word in said[0] if word else said == ()


def test_as_many_coils_as_slices(case):
    coils, t1 = torch.cat([case.k * s for s in (1, .5j, .3, .2, -.1, .05)], 1), slices(case.t1, scale=Scale(0., float(case.t1.data.max()))).data
    assert check_layout(coils, case.mask, t1) == ()
    with pytest.raises(KSpaceError, match=r"k.swapaxes\(0, 1\)"): check_layout(coils.transpose(0, 1), case.mask, t1)


def test_conjugated_k_space_is_refused(case):
    with pytest.raises(KSpaceError, match=r"180 degrees.*k = k.conj\(\)"): ZeroFilling().reconstruct_volume(case.k.conj().resolve_conj(), case.mask, case.t1)


def test_save_and_load(case, tmp_path):
    method = METHODS["ot"](4)
    again = OTRecon.from_pretrained(method.save_pretrained(tmp_path / "saved"))
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    assert all(torch.equal(a, b) for a, b in zip(method.model.state_dict().values(), again.model.state_dict().values())) and again.declared() == method.declared()
    assert far(again.reconstruct_volume(case.k, case.mask, case.t1).data, method.reconstruct_volume(case.k, case.mask, case.t1).data) < 1e-3
    with pytest.raises(ValueError, match="there are ot"): OTRecon.from_pretrained("nothing")


class Mirrored(ZeroFilling):
    def complete(self, kspace, mask, aux=None, sensitivities=None): return fft2c(ifft2c(kspace).flip(-1))


class OwnScale(ZeroFilling):
    def complete(self, kspace, mask, aux=None, sensitivities=None): return kspace / ifft2c(kspace).abs().amax((-2, -1), keepdim=True)


class Inconsistent(ZeroFilling):
    def complete(self, kspace, mask, aux=None, sensitivities=None): return torch.where(torch.rand(kspace.shape, generator=torch.Generator().manual_seed(0)) < .05, 0, kspace)


@pytest.mark.parametrize("fault", [Mirrored, OwnScale, Inconsistent])
def test_planted_faults_do_not_pass(case, fault):
    with pytest.raises(ValueError, match="keeps what was measured"): fault().reconstruct_volume(case.k, case.mask, case.t1)


def lying(case, layout): return torch.where(case.mask, fft2c(layout.apply(ifft2c(case.full))), 0)


def test_no_false_alarm(case): assert check_layout(case.k, case.mask, slices(case.t1, scale=Scale(0., float(case.t1.data.max()))).data) == ()


@pytest.mark.parametrize("layout", [Layout(halves=(True, True)), Layout(halves=(False, True)), Layout("reversed"), Layout(rows=True), Layout(rows=True, columns=True), Layout(columns=True)], ids=lambda l: l.words)
def test_what_lies_otherwise_is_told_and_mended(case, layout):
    turned = lying(case, layout)
    try: said = " ".join(ZeroFilling().reconstruct_volume(turned, case.mask, case.t1).notes)
    except KSpaceError as e: said = f"refused {e}"
    line, alike = mending(layout, case.size)
    assert line in said and (said.startswith("refused") or layout.rows or layout.columns)  # what is nearly symmetric may be a note
    names = dict(k=turned.numpy(), np=np); exec(line, names); k = np.ascontiguousarray(names["k"]); names = dict(k=case.mask.numpy(), np=np)
    if alike: exec(line, names)
    again = ZeroFilling().reconstruct_volume(k, np.ascontiguousarray(names["k"]), case.t1)
    assert np.corrcoef(slices(again, scale=Scale(0., 1.)).data.flatten(), case.truth.flatten())[0, 1] > .7


def test_zero_frequency_in_the_corner_is_refused(case):
    corner = np.fft.fft2(case.truth.numpy(), norm="ortho").astype(np.complex64)
    for mask in (case.mask, None):
        given = corner if mask is not None else np.fft.ifftshift(case.k, axes=(-2, -1))
        with pytest.raises(KSpaceError, match="zero frequency of this k-space is at the edge.*np.fft.fftshift"): ZeroFilling().reconstruct_volume(given, mask, case.t1)


def pairs(k, kind="<f4"):
    out = np.zeros(k.shape, [("real", kind), ("imag", kind)]); out["real"], out["imag"] = k.real, k.imag
    return out


FORMS = {"three axes": lambda k: k[:, 0], "long double": lambda k: k.astype(np.clongdouble), "big-endian": lambda k: k.astype(">c8"), "Fortran order": np.asfortranarray, "two channels": lambda k: np.stack([k.real, k.imag], -1), "real and imag": pairs,
    "r and i, big-endian doubles": lambda k: pairs(k, ">f8").view([("r", ">f8"), ("i", ">f8")]), "Real and Imaginary": lambda k: pairs(k).view([("Real", "<f4"), ("Imaginary", "<f4")])}


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms"); write_volume(case.t1, folder / "t1.nii.gz"); np.save(folder / "mask.npy", case.mask[0, 0, 0].numpy())
    return folder


def run(folder, source, mask="mask.npy"): return reconstruct_file(folder / source, folder / "out.nii.gz", folder / mask, folder / "t1.nii.gz", device="cpu", progress=False)


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_read(case, folder, form):
    np.save(folder / "k.npy", FORMS[form](case.k.numpy()))
    from mrbook.methods.ot.files import read_scan
    scan = read_scan(folder / "k.npy", folder / "mask.npy", folder / "t1.nii.gz")
    assert torch.equal(scan.kspace.to(torch.complex64), case.k) and ("real and imaginary" in " ".join(scan.notes)) == (form == "two channels")


def test_hdf5_of_matlab(case, folder):
    with h5py.File(folder / "k.h5", "w") as f: f["kspace"] = pairs(case.k.numpy())
    facts = run(folder, "k.h5"); assert facts["consistency"] < 1e-4 and facts["slices"] == 6 and facts["notes"] == []


@pytest.mark.parametrize("change, word", [(lambda k: k.real, "is real"), (lambda k: k * np.nan, "NaN"), (lambda k: k.astype(np.complex64).view(np.float32).astype(np.int16), "is real"), (lambda k: np.moveaxis(k[:, 0], 0, -1), "k.transpose"),
    (lambda k: k[:4], "4 x 1 x"), (lambda k: k > 0, "bool"), (lambda k: np.zeros(3, [("x", "f4")]), "fields x")])
def test_one_line_for_the_rest(case, folder, change, word):
    np.save(folder / "bad.npy", change(case.k.numpy()))
    with pytest.raises(KSpaceError, match=word) as e: run(folder, "bad.npy")
    assert "\n" not in str(e.value)
