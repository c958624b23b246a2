"Distances between sets: invariances, sample sizes, the shipped encoder, LPIPS without its parts."
import sys, types
import numpy as np, pytest, torch
from mrbook.evaluate import distribution as D

def sets(n=60, d=6, shift=0.):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift

@pytest.mark.parametrize("distance", [D.fid, D.kid])
def test_order_of_images_and_rotation_do_not_matter(distance):
    x, y = sets(shift=0.3)
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    kw = dict(subset_size=60) if distance is D.kid else {}
    a = float(distance(x, y, **kw))
    assert float(distance(x[::-1].copy(), y, **kw)) == pytest.approx(a)
    assert float(distance(x @ q, y @ q, **kw)) == pytest.approx(a, rel=1e-6)
    assert float(distance(y, x, **kw)) == pytest.approx(a, rel=1e-6)

def test_fid_of_a_set_with_itself_and_with_too_few():
    x, _ = sets()
    assert float(D.fid(x, x)) == pytest.approx(0, abs=1e-9)
    with pytest.warns(UserWarning, match="n = 8 and 60"): D.fid(x[:8], x)
    with pytest.raises(ValueError, match="at least 2"): D.fid(x[:1], x)

def test_kid_unequal_sizes_and_report():
    x, y = sets()
    k = D.kid(x[:20], y, subsets=7)
    assert k.n == (20, 60) and k.dim == 6 and k.sd > 0 and "n 20 and 60" in str(k)
    with pytest.raises(ValueError, match="between 2 and 20"): D.kid(x[:20], y, subset_size=21)
    assert D.kid(x, y, subset_size=60).sd == 0

def test_any_callable_encodes():
    images = torch.rand(9, 1, 8, 8)
    np.testing.assert_allclose(D.encode(images, lambda x: x.mean((2, 3)), batch=4)[:, 0], images.mean((1, 2, 3)), rtol=1e-6)
    with pytest.raises(ValueError, match="got \\(9, 3, 8, 8\\)"): D.encode(images.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="must lie in"): D.encode(images * 255)

def test_shipped_encoder_is_frozen_and_batch_free():
    net, x = D.default_encoder(), torch.rand(3, 1, 64, 56, generator=torch.Generator().manual_seed(0))
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-4)
    assert net(x).shape == (3, 64)

def test_perceptual_distance_mask_and_range():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2, 1, 64, 64, generator=g)
    b = a.clone(); b[..., :16, :16] = 0
    far = torch.zeros_like(a); far[..., 48:, 48:] = 1
    assert (D.perceptual_distance(a, b, mask=far) < 0.2 * D.perceptual_distance(a, b, mask=1 - far)).all()
    np.testing.assert_allclose(D.perceptual_distance(a * 7, b * 7, data_range=7), D.perceptual_distance(a, b), rtol=1e-3)

def test_neighbours_are_sorted_and_exact():
    x, y = sets()
    found = D.nearest_neighbours(x, y, k=3)
    full = np.linalg.norm(x[:, None] - y, axis=-1)
    np.testing.assert_allclose(found.distance, np.sort(full, 1)[:, :3])
    assert D.novelty(y + 1e-6, y, x) < 1e-4 < 0.5 < D.novelty(x[::2], y, x[1::2]) < 2

def test_lpips_names_the_missing_file(tmp_path, monkeypatch):
    fake = types.ModuleType("lpips"); fake.__spec__ = types.SimpleNamespace(name="lpips")
    monkeypatch.setitem(sys.modules, "lpips", fake)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="vgg16-397923af.pth"): D.lpips_distance(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), net="vgg")
