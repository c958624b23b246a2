"No-reference scores: awkward input, foreign parameter files, shipped weights."
import numpy as np, pytest, torch
from scipy import io
from mrbook.evaluate.no_reference import NIQEModel, SeverityModel, brain_crop, brisque, distort, fit_aggd, natural_niqe, niqe, piqe, piqe_blocks, read_libsvm, shipped

MEASURES = (niqe, brisque, piqe)

@pytest.fixture
def head(): # a textured disc on air
    y, x = np.mgrid[:112, :96] - np.array([56, 48])[:, None, None]
    texture = 0.5 + 0.2 * np.sin(x / 3) * np.cos(y / 4) + np.random.default_rng(0).normal(0, 0.03, x.shape)
    return np.where(x**2 + y**2 < 42**2, texture, 0).clip(0, 1).astype(np.float32)

@pytest.mark.parametrize("measure", MEASURES)
def test_shapes_types_and_padding(measure, head):
    one = measure(head)
    assert one.shape == (1,) and one.dtype == np.float64 and np.isfinite(one).all()
    batch = measure(torch.as_tensor(np.stack([head, head]))[:, None])
    np.testing.assert_allclose(batch, [one[0], one[0]])
    np.testing.assert_allclose(measure(np.pad(head, ((3, 40), (11, 0)))), one)

@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("spoil, says", [
    (lambda x: x * 0, "constant image"), (lambda x: x * 0 + 0.4, "constant image"), (lambda x: x * np.nan, "NaN"),
    (lambda x: x + 5, "constant image inside the crop"), (lambda x: np.stack([x, x, x])[None], "one channel"), (lambda x: x[0], "expected")])
def test_refusals(measure, head, spoil, says):
    with pytest.raises(ValueError, match=says): measure(spoil(head))

def test_masks(head):
    with pytest.raises(ValueError, match="differ in shape"): niqe(head, mask=np.ones((5, 5), bool))
    with pytest.raises(ValueError, match="pass one each"): niqe(np.stack([head] * 3), mask=np.stack([head > 0] * 2))
    with pytest.raises(ValueError, match="smaller than one patch"): niqe(head[40:60, 40:60], mask=np.ones((20, 20), bool))
    with pytest.raises(ValueError, match="too small for two scales"): brisque(head[40:50, 40:50], mask=np.ones((10, 10), bool))
    assert brain_crop(head, head > 0)[2].source == "mask" and brain_crop(head)[2].source == "foreground"

def test_input_untouched(head):
    before = head.copy()
    for measure in MEASURES: measure(head)
    for kind in ("noise", "bias", "gibbs"): distort(head, kind, 0.)[0, 0]
    np.testing.assert_array_equal(head, before)

def test_doubled_scales(tmp_path): # a file fitted to features with the left scale written twice
    rng = np.random.default_rng(0)
    f = rng.normal(size=(200, 36))
    f[:, [13, 17, 31, 35]] = f[:, [12, 16, 30, 34]]
    io.savemat(tmp_path / "pop.mat", dict(pop_mu=f.mean(0), pop_cov=np.cov(f.T)))
    model = natural_niqe(tmp_path / "pop.mat")
    proper = f.copy(); proper[:, [13, 17, 31, 35]] += 3
    assert model.doubled and model.distance(proper) == pytest.approx(0, abs=1e-4)
    io.savemat(tmp_path / "pris.mat", dict(mu_prisparam=np.zeros(36), cov_prisparam=np.eye(36)))
    assert not natural_niqe(tmp_path / "pris.mat").doubled

def test_niqe_distance_closed_form():
    f = np.random.default_rng(1).normal(size=(500, 36))
    cov = np.cov(f.T)
    assert NIQEModel(f.mean(0) - 2, cov).distance(f) == pytest.approx(np.sqrt(4 * np.linalg.inv(cov).sum()), rel=1e-6)

def test_libsvm_skips_zero_features(tmp_path): # sparse rows, constant weights
    (tmp_path / "allrange").write_text("x\n-1 1\n" + "".join(f"{i} -1 1\n" for i in range(1, 37)))
    (tmp_path / "allmodel").write_text("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\ntotal_sv 2\nrho 0\nSV\n1 \n-2 36:1\n")
    score = read_libsvm(tmp_path / "allmodel", tmp_path / "allrange")
    np.testing.assert_allclose(score(np.zeros((1, 36))), 1 - 2 * np.exp(-1))

def test_piqe_flat_and_noisy_blocks():
    noise = np.random.default_rng(0).normal(128, 40, (64, 64)).clip(0, 255)
    b = piqe_blocks(noise)
    assert b.active.all() and b.noisy.all() and not b.washed.any() and 50 < b.score < 100
    noise[:, 32:] = 128
    assert piqe_blocks(noise).active[:, 3].sum() == 0 # flat blocks do not vote

def test_aggd_is_vectorised():
    x = np.random.default_rng(0).normal(size=(3, 4, 500))
    for whole, parts in zip(fit_aggd(x), zip(*(fit_aggd(row) for row in x.reshape(-1, 500)))): np.testing.assert_allclose(whole.ravel(), parts)

@pytest.mark.parametrize("name, kind", [("quality/niqe-phantom", NIQEModel), ("quality/brisque-phantom", SeverityModel)])
def test_shipped_models_come_back_from_their_tensors(name, kind):
    model = shipped(name)
    assert isinstance(model, kind)
    for k, v in kind.of(model.tensors()).tensors().items(): np.testing.assert_array_equal(v, model.tensors()[k])
