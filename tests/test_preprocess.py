"What the preprocessing notebook cannot say in passing: many transforms, masks, noise, and refusals."
import builtins
import numpy as np, pytest, torch
from scipy.ndimage import gaussian_filter
from mrbook.scans.preprocess import Similarity, apply_similarity, bias_correct, in_plane_similarity, n4

def head(shape=(120, 110), seed=0):
    "An ellipse with a rim, two ventricles and texture: enough to register."
    y, x = np.indices(shape) - (np.array(shape) / 2).reshape(2, 1, 1)
    inside = (y / 48)**2 + (x / 38)**2 < 1
    image = inside * (0.5 + 0.3 * gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3) * 8)
    image[((y / 44)**2 + (x / 34)**2 > 1) & inside] = 0.9
    for side in (-1, 1): image[((y + 5) / 14)**2 + ((x - 9 * side) / 4)**2 < 1] = 0.1
    return image.clip(0).astype(np.float32)

@pytest.mark.parametrize("scale, angle, shift", [(0.8, 5., (3., -4.)), (1.3, -15., (-8., 5.)), (1., 0., (0., 0.)), (0.6, 17., (10., 8.))])
def test_recovers_known_transforms_of_inverted_contrast(scale, angle, shift):
    image = head()
    truth = Similarity(scale, angle, shift, image.shape, (170, 180))
    inverted = apply_similarity(np.where(image > 0.02, 1 - image, 0), truth)
    inverted += 0.03 * np.random.default_rng(1).standard_normal(inverted.shape)
    found = in_plane_similarity(image, inverted, steps=(4, 2))
    rim = np.array([[10, 10, 1], [110, 10, 1], [10, 100, 1], [110, 100, 1]]).T
    assert np.linalg.norm((found.matrix - truth.matrix)[:2] @ rim, axis=0).max() < 0.5
    assert abs(found.scale / scale - 1) < 0.005 and 1 < found.score < 2

def test_survives_fat_suppression():
    "Without the scalp the foreground is much smaller than the head: a misleading start."
    y, x = np.indices((160, 150)) - np.array([80, 75]).reshape(2, 1, 1)
    r = np.hypot(y / 74, x / 66)
    brain = np.pad(head(), 20) * (np.hypot(y / 48, x / 38) < 1)
    full = np.where((r < 1) & (r > 0.85), 0.8, brain); dark = np.where((r < 1) & (r > 0.85), 0.08, brain)
    truth = Similarity(0.7, 6., (3., 2.), full.shape, (130, 120))
    found = in_plane_similarity(dark, apply_similarity(full, truth), steps=(4, 2))
    assert abs(found.scale / truth.scale - 1) < 0.005 and abs(found.angle - 6) < 0.5

def test_same_input_same_transform():
    image = head()
    target = apply_similarity(image, Similarity(0.9, 4., (2., 1.), image.shape, (110, 110)))
    a, b = (in_plane_similarity(image, target, steps=(4,)) for _ in range(2))
    assert a == b

def test_mask_hides_what_does_not_belong():
    image = head()
    target = image.copy(); target[20:60, 60:100] = 3.
    mask = np.ones_like(image); mask[15:65, 55:105] = 0
    found = in_plane_similarity(image, target, mask=mask, steps=(4, 2))
    assert np.abs(found.matrix - np.eye(3)).max() < 0.3

def test_apply_is_exact_for_whole_pixels():
    image = head()
    moved = apply_similarity(image, Similarity(1., 0., (7., -3.), image.shape, image.shape))
    assert np.allclose(moved[7:, :-3], image[:-7, 3:], atol=1e-6) and moved.dtype == np.float32
    turned = apply_similarity(image[:, :110], Similarity(1., 90., (0., 0.), image.shape, image.shape[::-1]))
    assert np.allclose(turned, np.rot90(image), atol=1e-5)
    assert set(np.unique(apply_similarity((image > 0.5) * 3., Similarity(0.7, 12., (1., 1.), image.shape, (90, 90)), order=0))) == {0, 3}

def test_apply_there_and_back_and_kinds():
    smooth = gaussian_filter(head(), 2)
    t = Similarity(1.4, 11., (4., 2.), smooth.shape, (200, 190))
    back = apply_similarity(apply_similarity(smooth, t, order=3), t.inverse(), order=3)
    assert np.abs(back - smooth)[10:-10, 10:-10].mean() < 0.02
    out = apply_similarity(torch.from_numpy(smooth).expand(2, 1, -1, -1), t)
    assert isinstance(out, torch.Tensor) and out.shape == (2, 1, 200, 190) and torch.equal(out[0], out[1])

def test_registration_refusals():
    image = head()
    for bad, say in ((image * np.nan, "NaN"), (image[None, None], "two slices"), (np.ones_like(image), "without foreground")):
        with pytest.raises(ValueError, match=say): in_plane_similarity(bad, image)

def test_field_has_unit_mean_and_divides_out():
    rng = np.random.default_rng(0)
    tissue = rng.choice([0.4, 0.7, 1.], (30, 32, 28)) + 0.02 * rng.standard_normal((30, 32, 28))
    x = np.linspace(-1, 1, 30)[:, None, None]
    corrected, field = bias_correct(tissue * np.exp(0.4 * x), mask=np.ones(tissue.shape))
    assert abs(np.log(field).mean()) < 1e-4 and np.allclose(corrected * field, tissue * np.exp(0.4 * x), rtol=1e-5)
    assert np.std(np.log(field) - 0.4 * x) < 0.02
    with pytest.raises(ValueError, match="too few"): bias_correct(tissue, mask=tissue > 9)

def test_n4_says_what_is_missing(monkeypatch):
    real = builtins.__import__
    def without_ants(name, *a, **k):
        if name == "ants": raise ImportError(name)
        return real(name, *a, **k)
    monkeypatch.setattr(builtins, "__import__", without_ants)
    with pytest.raises(ImportError, match=r"mrbook\[preprocess\]"): n4(np.ones((10, 10, 10)))

def test_n4_removes_a_field():
    pytest.importorskip("ants")
    rng = np.random.default_rng(0)
    tissue = rng.choice([0.4, 0.7, 1.], (32, 32, 24)) + 0.02 * rng.standard_normal((32, 32, 24))
    field = np.exp(0.4 * np.linspace(-1, 1, 32))[:, None, None] * np.ones(tissue.shape)
    estimate = n4(tissue * field, mask=np.ones(tissue.shape), spacing=(5, 5, 5), shrink=2)[1]
    assert np.var(np.log(estimate / field)) < 0.05 * np.var(np.log(field))
