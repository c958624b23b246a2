"What the volumes notebook cannot say in passing: odd files, odd headers, failing disks, and round trips over many shapes."
import gzip, itertools, os, stat, warnings
import nibabel as nib, numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from mrbook.scans.volume import (Scale, Volume, VolumeError, VolumeWarning, brain_mask, canonical, check_output, fit_size, looks_like_labels, otsu_threshold,
    percentile_window, read_volume, resample, resample_like, restack, slices, voxel_sizes, write_volume)

rng = np.random.default_rng(0)
DATA = rng.random((9, 10, 11)).astype(np.float32)
TURNS = [nib.orientations.inv_ornt_aff(np.array(list(zip(p, f))), (9, 10, 11))
         for p in itertools.permutations(range(3)) for f in itertools.product((1, -1), repeat=3)]
FORMS = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "pixdim")

def header_bytes(data=DATA, affine=np.eye(4), cls=nib.Nifti1Image, header=None, **fields):
    raw = cls(data, affine, header).to_bytes()
    n = 540 if cls is nib.Nifti2Image else 348
    h = cls.header_class(raw[:n], check=False)
    for k, v in fields.items(): h[k] = v
    return h.binaryblock + raw[n:]

@pytest.fixture
def save(tmp_path):
    def f(content, name="x.nii"):
        (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
        return tmp_path / name
    return f

def quietly(path):
    with warnings.catch_warnings(): warnings.simplefilter("error"); return read_volume(path)

def test_refusals_are_one_line(save, tmp_path):
    raw, packed = header_bytes(), gzip.compress(header_bytes())
    color = np.zeros((8, 8, 8), [(c, "u1") for c in "RGBA"])
    big = header_bytes(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    nan, inf = DATA.copy(), DATA.copy()
    nan[0, 0, :3] = np.nan; inf[0, 0, 0] = -np.inf
    cases = {"truncated": [raw[:-1], raw[:400], big], "empty": [b"", header_bytes(DATA[:, :0])], "3 NaN and 0": [header_bytes(nan)], "0 NaN and 1 inf": [header_bytes(inf)],
        "MATLAB": [b"MATLAB 5.0 MAT-file" + b"\0" * 500], "magic": [bytes(range(200)) * 4, raw[:340]], "colour": [header_bytes(color)],
        "data type code": [header_bytes(datatype=77)], "make no sense": [header_bytes(dim=[0] * 8), header_bytes(dim=[3, -9, 10, 11, 1, 1, 1, 1]), header_bytes(dim=[9] * 8)],
        "start at byte": [header_bytes(vox_offset=np.nan)], "singular": [header_bytes(sform_code=1, srow_x=0)], "NaN or infinite entries": [header_bytes(sform_code=1, srow_x=np.nan)],
        "all zeros": [header_bytes(DATA * 0)], "constant": [header_bytes(DATA * 0 + 2)], "complex": [header_bytes(DATA * 1j)], "2 frames": [header_bytes(np.stack([DATA] * 2, -1))],
        "pair": [raw[:344] + b"ni1\0" + raw[348:]], "8 x 8": [header_bytes(DATA[:7, :7]), header_bytes(DATA[:1, :1, :1]), header_bytes(DATA[0, 0])]}
    for message, contents in cases.items():
        for content in contents:
            for name in ("a.nii", "b.nii.gz"):
                with pytest.raises(VolumeError, match=message) as e: quietly(save(content, name))
                assert "\n" not in str(e.value) and name in str(e.value)
    for cut in (packed[:100], packed[:-200], packed[:-4], packed[:11]):
        (tmp_path / "c.nii.gz").write_bytes(cut)
        with pytest.raises(VolumeError, match="truncated"): read_volume(tmp_path / "c.nii.gz")
    for path, message in ((tmp_path, "folder"), (tmp_path / "none.nii", "does not exist"), (tmp_path / ("x" * 300), "does not exist")):
        with pytest.raises(VolumeError, match=message): read_volume(path)

def test_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(VolumeError, match="regular file"): read_volume(tmp_path / "pipe.nii")

def test_name_does_not_matter_bytes_do(save):
    for name in ("scan", "scan.img", "scan.nii.gz"):
        path = save(header_bytes(), name)
        if name.endswith("gz"): path.write_bytes(header_bytes())
        assert np.array_equal(quietly(path).data, DATA)

@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f4", ">f8"])
@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
def test_types_and_scaling_agree_with_nibabel(save, dtype, cls):
    header = cls.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(np.dtype(dtype))
    raw = bytearray(header_bytes((DATA * 90).astype(np.dtype(dtype)), np.diag([-2., 1, 1, 1]), cls, header))
    h = cls.header_class(bytes(raw[:header.sizeof_hdr]), check=False)
    h["scl_slope"], h["scl_inter"] = 0.5, -3
    path = save(h.binaryblock + bytes(raw[header.sizeof_hdr:]))
    v = quietly(path)
    assert v.data.dtype == np.float32 and v.data.flags.writeable
    assert np.array_equal(v.data, nib.load(path).get_fdata(dtype=np.float32))
    again = read_volume(write_volume(v, path.with_name("y.nii.gz")))
    assert np.array_equal(again.data, v.data) and type(again.header) is cls.header_class and again.header.endianness == v.header.endianness

def test_frames_and_2d(save):
    v = quietly(save(header_bytes(DATA[..., None, None])))
    assert v.shape == DATA.shape and "read as" in v.notes[0]
    assert quietly(save(header_bytes(DATA[:, :, 0]))).shape == (9, 10, 1)
    assert quietly(save(header_bytes(DATA[:1]))).shape == (1, 10, 11)

@pytest.mark.filterwarnings("ignore::mrbook.scans.volume.VolumeWarning")
def test_contradicting_headers(save):
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2), [0, 0, 4])
    good = nib.Nifti1Image(DATA, turn).header
    good.set_sform(turn, 1); good.set_qform(turn, 1)
    assert quietly(save(header_bytes(DATA, turn, header=good))).notes == ()
    for fields, say in (dict(pixdim=[1, 1, 1, 6, 0, 0, 0, 0]), "pixdim says 1 x 1 x 6"), (dict(qoffset_x=40), "apart"), (dict(pixdim=[-1, 1, 1, 1, 0, 0, 0, 0]), "mirror"), (dict(quatern_b=3), "qform cannot be decoded"):
        path = save(header_bytes(DATA, turn, header=good, **fields))
        with pytest.warns(VolumeWarning, match=say): v = read_volume(path)
        assert any(say in n for n in v.notes) and np.allclose(v.affine, turn, atol=1e-6)
        with pytest.warns(VolumeWarning): again = read_volume(write_volume(v, path.with_name("again.nii")))
        for k in FORMS: assert np.array_equal(np.ravel(again.header[k])[:4], np.ravel(v.header[k])[:4]), k
    assert quietly(save(header_bytes(DATA, turn, header=good, qoffset_x=40, qform_code=2))).notes == ()  # two spaces, both legitimate
    with pytest.warns(VolumeWarning, match="centred"): v = read_volume(save(header_bytes(DATA, turn, header=good, sform_code=0, qform_code=0)))
    assert v.orientation == "LAS" and v.spacing == (1, 1, 1)
    v = quietly(save(header_bytes(DATA, turn, header=good, sform_code=0)))
    assert np.allclose(v.affine, turn, atol=1e-6) and v.notes == ()
    with pytest.warns(VolumeWarning, match="meter"): read_volume(save(header_bytes(DATA, turn, header=good, xyzt_units=1)))

def test_repairs_are_noted(save):
    v = quietly(save(header_bytes(sform_code=1, pixdim=[0, 1, 1, 1, 0, 0, 0, 0])))
    assert any("repaired" in n and "qfac" in n for n in v.notes)

def test_write_keeps_header_and_forms(save, tmp_path):
    image = nib.Nifti1Image(DATA, np.diag([-2., 2, 2, 1]))
    image.set_sform(np.diag([-2., 2, 2, 1]), 4); image.set_qform(nib.affines.from_matvec(np.diag([2., 2, 2]), [1, 2, 3]), 1)
    h = image.header
    h["descrip"], h["aux_file"], h["cal_max"], h["intent_name"] = b"made by hand", b"aux", 7, b"scan"
    h.set_xyzt_units("mm", "sec"); h.extensions.append(nib.nifti1.Nifti1Extension("comment", b"keep me"))
    image.to_filename(tmp_path / "in.nii.gz")
    with pytest.warns(VolumeWarning): v = read_volume(tmp_path / "in.nii.gz")
    out = nib.load(write_volume(v.replace(data=v.data * 2), tmp_path / "out.nii.gz"))
    for k in (*FORMS, "descrip", "aux_file", "intent_name", "xyzt_units"): assert np.array_equal(out.header[k], nib.load(tmp_path / "in.nii.gz").header[k]), k
    assert out.header["cal_max"] == 0 and out.get_data_dtype() == np.float32 and out.header.extensions[0].get_content() == b"keep me"
    assert np.array_equal(out.get_fdata(dtype=np.float32), DATA * 2)

def test_write_new_affine_sets_both_forms(tmp_path):
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, 0.1) @ np.diag([1, 2, 3.]), [4, 5, 6])
    image = nib.load(write_volume(Volume(DATA, turn), tmp_path / "a.nii"))
    assert np.allclose(image.get_sform(), turn, atol=1e-5) and np.allclose(image.get_qform(), turn, atol=1e-4) and image.header["qform_code"] == 1
    shear = turn.copy(); shear[0, 1] += 1
    image = nib.load(write_volume(Volume(DATA, shear), tmp_path / "b.nii"))
    assert np.allclose(image.affine, shear, atol=1e-5) and image.header["qform_code"] == 0

def test_write_is_atomic(tmp_path, monkeypatch):
    path = write_volume(Volume(DATA, np.eye(4)), tmp_path / "a.nii.gz")
    before, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0); os.umask(umask)
    assert mode == 0o666 & ~umask
    def fail(*a): raise OSError(28, "No space left on device")
    for name in ("replace", "fsync"):
        with monkeypatch.context() as m:
            m.setattr(os, name, fail)
            with pytest.raises(VolumeError, match="No space left"): write_volume(Volume(DATA * 2, np.eye(4)), path)
        assert os.listdir(tmp_path) == ["a.nii.gz"] and path.read_bytes() == before
    def interrupt(*a): raise KeyboardInterrupt
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt): write_volume(Volume(DATA * 2, np.eye(4)), path)
    assert os.listdir(tmp_path) == ["a.nii.gz"] and path.read_bytes() == before

def test_write_refusals(tmp_path, monkeypatch):
    v = Volume(DATA, np.eye(4))
    (tmp_path / "d.nii").mkdir(); (tmp_path / "file").touch()
    for name, say in (("x.mgz", "must end"), ("x", "must end"), ("d.nii", "folder"), ("no/x.nii", "does not exist"), ("file/x.nii", "does not exist")):
        with pytest.raises(VolumeError, match=say): write_volume(v, tmp_path / name)
    with pytest.raises(VolumeError, match="NaN"): write_volume(v.replace(data=v.data * np.nan), tmp_path / "x.nii")
    monkeypatch.setattr(os, "access", lambda *a: False)
    with pytest.raises(VolumeError, match="not writable"): check_output(tmp_path / "x.nii")
    assert not (tmp_path / "x.nii").exists()

def test_write_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.nii").symlink_to(tmp_path / "real" / "scan.nii")
    write_volume(Volume(DATA, np.eye(4)), tmp_path / "link.nii")
    assert (tmp_path / "link.nii").is_symlink() and (tmp_path / "real" / "scan.nii").exists()

@pytest.mark.parametrize("affine", TURNS)
def test_canonical_is_a_bit_exact_permutation(affine):
    v = Volume(DATA, affine)
    ras, undo = canonical(v)
    assert ras.orientation == "RAS" and sorted(ras.data.ravel()) == sorted(DATA.ravel())
    assert np.array_equal(undo(ras).data, DATA) and np.array_equal(undo(ras).affine, affine)
    i = np.argwhere(ras.data == DATA.max())[0], np.argwhere(DATA == DATA.max())[0]
    assert np.allclose(ras.affine[:3] @ [*i[0], 1], affine[:3] @ [*i[1], 1])
    coarse = resample(ras, 1.7)
    assert np.allclose(resample_like(undo(coarse), coarse, order=0).data, coarse.data)

@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 14)] * 3), turn=st.integers(0, 47), axis=st.integers(0, 2), size=st.none() | st.integers(1, 20) | st.tuples(st.integers(1, 20), st.integers(1, 20)),
    multiple=st.sampled_from([1, 2, 8]), seed=st.integers(0, 9), tilt=st.floats(-0.4, 0.4))
def test_restack_inverts_slices(shape, turn, axis, size, multiple, seed, tilt):
    data = np.random.default_rng(seed).normal(3, 50, shape).astype(np.float32)
    data.flat[0] += 200
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(tilt, tilt / 2)) @ TURNS[turn] @ np.diag([1, 2, 3, 1])
    v = Volume(data, affine, notes=("kept",))
    s = slices(v, axis, size, multiple, scale=Scale(-40., 60.) if data.size < 100 else None)
    assert s.data.shape[2] % multiple == 0 and s.data.min() >= 0 and s.data.max() <= 1
    back = restack(s)
    assert np.allclose(back.data, data, atol=2e-4, rtol=1e-6) and np.array_equal(back.affine, affine) and back.notes == ("kept",)
    new = restack(s, torch.full_like(s.data, 2.)).data
    changed = new != data
    assert changed.sum() <= s.data.numel()
    assert np.allclose(new[changed], s.scale.invert(2.), rtol=1e-5)

def test_anatomy_of_pictures():
    x, y, z = np.meshgrid(np.arange(8), np.arange(9), np.arange(10), indexing="ij")
    for code, name in ((x, "right"), (y, "anterior"), (z, "superior")):
        for affine in (np.eye(4), np.diag([-1., -1, 1, 1])):
            ras = Volume(code / 9., np.eye(4)); v = Volume(ras.data[::-1, ::-1] if affine[0, 0] < 0 else ras.data, affine)
            axial, coronal, sagittal = (slices(v, a, scale=Scale(0., 1.)).data for a in (2, 1, 0))
            if name == "right": assert (axial[..., -1] > axial[..., 0]).all() and (coronal[..., -1] > coronal[..., 0]).all() and (sagittal[-1] > sagittal[0]).all()
            if name == "anterior": assert (axial[:, :, 0] > axial[:, :, -1]).all() and (sagittal[..., -1] > sagittal[..., 0]).all() and (coronal[-1] > coronal[0]).all()
            if name == "superior": assert (coronal[:, :, 0] > coronal[:, :, -1]).all() and (sagittal[:, :, 0] > sagittal[:, :, -1]).all() and (axial[-1] > axial[0]).all()

def test_resample_places_a_point_where_it_is():
    z = np.zeros((40, 30, 20), np.float32); z[24, 9, 12] = 1
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.3, 0.4) @ np.diag([1, 1.5, 2]), [-10, 5, 3])
    v = Volume(ndimage_blur(z, 2.), affine)
    new = resample(v, (1.7, 1.1, 2.4))
    for a in (v, new, resample_like(v, Volume(np.zeros((60, 60, 60)), np.diag([1.2, 1.2, 1.2, 1]) + np.array([[0, 0, 0, c] for c in (-40, -30, 0, 0)])))):
        centre = a.affine[:3] @ [*(np.stack(np.indices(a.shape), -1) * a.data[..., None]).sum((0, 1, 2)) / a.data.sum(), 1]
        assert np.allclose(centre, affine[:3] @ [24, 9, 12, 1], atol=0.15)

def ndimage_blur(x, s):
    from scipy.ndimage import gaussian_filter
    return gaussian_filter(x, s)

def test_resample_keeps_mean_and_labels():
    v = Volume(ndimage_blur(rng.random((40, 40, 40)), 3).astype(np.float32), np.eye(4))
    assert abs(resample(v, 3.).data.mean() / v.data.mean() - 1) < 1e-3
    labels = Volume(rng.integers(0, 4, (20, 20, 20)), np.eye(4))
    assert set(np.unique(resample(labels, 1.3, order=0).data)) <= {0, 1, 2, 3}
    assert resample(v, 100.).shape == (1, 1, 1)
    away = Volume(np.zeros((8, 8, 8)), nib.affines.from_matvec(np.eye(3), [1000, 0, 0]))
    assert (resample_like(v, away, fill=-1.).data == -1).all()

def test_fit_size_is_its_own_inverse():
    for h, w, H, W in itertools.product(range(1, 6), repeat=4):
        x = torch.rand(2, 1, h, w)
        assert torch.equal(fit_size(fit_size(x, (H, W)), (h, w), onto=x), x)

def test_window_on_tensors_and_masks():
    x = torch.rand(3, 1, 20, 20)
    y, scale = percentile_window(x, low=0, high=100, mask=np.ones(x.shape))
    assert isinstance(y, torch.Tensor) and y.dtype == torch.float32 and torch.allclose(scale.invert(y), x, atol=1e-6)
    inside = np.zeros((20, 20), bool); inside[:5] = True
    data = np.arange(400.).reshape(20, 20)
    assert percentile_window(data, high=100, mask=inside)[1].high == 99
    with pytest.raises(VolumeError, match="percentiles"): percentile_window(data, 90, 10)
    with pytest.raises(VolumeError, match="foreground"): percentile_window(data, mask=np.zeros((20, 20)))

@pytest.mark.parametrize("bright", [0.05, 0.12, 0.2])
def test_threshold_lies_between_air_and_tissue(bright):
    "Also when much fluid or fat is far brighter than the tissue, as on T2w."
    n = 40000
    tissue = np.where(np.arange(n) < bright * n, 1., 0.4) * (np.arange(n) < 0.5 * n)
    data = np.hypot(tissue + 0.04 * rng.standard_normal(n), 0.04 * rng.standard_normal(n))
    assert 0.1 < otsu_threshold(data) < 0.35

def test_mask_keeps_one_filled_piece():
    y, x = np.mgrid[:40, :40]
    image = ((y - 20)**2 + (x - 20)**2 < 144) * 1. - ((y - 20)**2 + (x - 20)**2 < 9)
    image[2:4, 2:4] = 1
    mask = brain_mask(image, sigma=0)
    assert mask[20, 20] and not mask[2, 2] and mask.dtype == bool
    assert brain_mask(np.stack([image] * 4, -1)).shape == (40, 40, 4)

def test_slices_refusals():
    v = Volume(DATA, np.eye(4))
    for kw in (dict(axis=3), dict(size=0), dict(multiple=0)):
        with pytest.raises(VolumeError): slices(v, **kw)
    with pytest.raises(VolumeError, match="same shape"): restack(slices(v), torch.zeros(1))

def test_real_scans_round_trip(tmp_path):
    root = os.environ.get("MRBOOK_DATA")
    if not root: pytest.skip("set MRBOOK_DATA to the folder of real scans (data/README.md)")
    from pathlib import Path
    paths = [next(Path(root).rglob(n), None) for n in ("MRI_mT_sub2.nii.gz", "IXI002-Guys-0828-T2_slice90.nii.gz", "GOLD_STANDARD*.nii.gz")]
    for path in filter(None, paths):
        v = quietly(path)
        again = quietly(write_volume(restack(slices(v)), tmp_path / "out.nii.gz"))
        assert np.allclose(again.data, v.data, rtol=1e-5, atol=1e-5 * v.data.max()) and np.array_equal(again.affine, v.affine)
        assert np.array_equal(v.affine, nib.load(path).affine) and voxel_sizes(v.affine) == v.spacing

LABELS = np.kron(np.arange(40).reshape(2, 4, 5), np.ones((6, 6, 6))).astype(np.int16) # 40 labels in blocks
ODD = {"two values": (DATA > .5, {}, None), "one slice": (rng.random((40, 40, 1)), {}, None), "4-D with one volume": (DATA[..., None], {}, "read as (9, 10, 11)"),
    "int8 with scl_slope": ((DATA * 100).astype(np.int8), dict(scl_slope=2., scl_inter=5.), None), "40 labels": (LABELS, {}, None), "3 m voxels": (DATA, dict(sform_code=1, srow_x=(3000, 0, 0, 0)), "no size of a scan"),
    "voxels in metres": (DATA, dict(sform_code=1, srow_x=(.001, 0, 0, 0), srow_y=(0, .001, 0, 0), srow_z=(0, 0, .001, 0)), "no size of a scan"), "negative": (DATA - 5, {}, None)}
REFUSED = {"RGB": (np.zeros((9, 9, 9), [(c, "u1") for c in "RGB"]), "colour, not intensities: export"), "complex": (DATA + 0j, "complex: save its magnitude"), "all NaN": (DATA * np.nan, "990 NaN .* replace them"),
    "constant": (DATA * 0 + 3, "constant .3 everywhere.: is this the right file"), "4-D": (np.stack([DATA] * 3, -1), "3 frames.*save one frame"), "beyond float32": (DATA.astype(float) * 1e300, "infinite values")}

@pytest.mark.parametrize("what", ODD)
def test_odd_scans_are_read(save, what):
    data, fields, note = ODD[what]
    data = data.astype(np.uint8) if data.dtype == bool else data
    with warnings.catch_warnings(): warnings.simplefilter("ignore"); v = read_volume(save(header_bytes(data.astype(np.float32) if data.dtype == np.float64 else data, **fields)))
    want = data.reshape(v.shape) * fields.get("scl_slope", 1) + fields.get("scl_inter", 0)
    assert np.allclose(v.data, want) and (note is None or any(note in n for n in v.notes))
    assert looks_like_labels(v) == (what in ("two values", "40 labels"))

@pytest.mark.parametrize("what", REFUSED)
def test_odd_scans_are_refused(save, what):
    data, match = REFUSED[what]
    with pytest.raises(VolumeError, match=match) as e: quietly(save(header_bytes(data)))
    assert "\n" not in str(e.value)

def test_labels_are_no_scan():
    "Label maps at any sampling, masks of any value, a smoothed mask; scans of few grey values, clipped, z-scored."
    from mrbook.mri.phantom import image, phantom
    from mrbook.mri.physics import Contrast
    a = phantom(5, 4.); scan = image(a, Contrast("t1w", 3.), noise=.01) * a.brain
    soft = resample_like(Volume(a.brain.astype(np.float32), a.affine), Volume(np.zeros(np.array(a.shape) - 3), a.affine @ np.diag([1.05, 1.05, 1.05, 1])), 1)
    assert all(looks_like_labels(v) for v in (a.labels, a.brain, a.brain * 255., LABELS, LABELS[::2, ::2, ::2], LABELS * 50, soft))
    assert not any(looks_like_labels(v) for v in (scan, np.round(scan * 40), np.round(scan * 255), scan.clip(0, .8), np.where(a.brain, scan - .5, 0), np.pad(scan, 40)))
