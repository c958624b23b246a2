"""What the consistency notebook does not say: types, orientations, brute-force counterparts, and inputs that are nearly wrong."""
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from mrbook.evaluate import consistency as C

@pytest.fixture(scope="module")
def brain():
    "A ball of WM in a shell of GM in a shell of CSF, a dark lesion, and noise."
    r = np.linalg.norm(np.indices((36, 38, 34)) - np.array([18, 19, 17])[:, None, None, None], axis=0)
    labels = np.select([r < 10, r < 13, r < 15], [3, 2, 1], 0).astype(np.uint8)
    lesions = np.linalg.norm(np.indices(r.shape) - np.array([18, 19, 20])[:, None, None, None], axis=0) < 2.5
    clean = np.select([lesions, labels == 3, labels == 2, labels == 1], [0.7, 0.9, 0.6, 0.2], 0.)
    return clean + 0.02 * (labels > 0) * np.random.default_rng(0).standard_normal(r.shape), labels, lesions

@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.integers(0, 2))
def test_stripes_by_loops(seed, axis):
    rng = np.random.default_rng(seed)
    p, t = rng.random((2, 5, 6, 7)); m = rng.random(p.shape) < 0.7
    pairs = [(p[i] - p[j], t[i] - t[j]) for j in np.ndindex(p.shape) if j[axis] + 1 < p.shape[axis] for i in [tuple(n + (k == axis) for k, n in enumerate(j))] if m[i] and m[j]]
    a, b = np.square(pairs).mean(0)
    assert C.stripe_energy(p, axis=axis, mask=m) == pytest.approx(a)
    assert C.stripe_ratio(p, t, axis=axis, mask=m) == pytest.approx(a / b)
    means = [(p - t).take(i, axis)[m.take(i, axis)].mean() for i in range(p.shape[axis])]
    assert C.slice_offsets(p, t, axis=axis, mask=m, least=1) == pytest.approx(means)
    assert C.stripe_offset(p, t, axis=axis, mask=m, least=1, drift=True) == pytest.approx(np.std(means, ddof=1))

@pytest.mark.parametrize("relative", [False, True])
def test_stripes_follow_the_volume(brain, relative):
    v, labels, _ = brain
    p = v + 0.05 * np.random.default_rng(1).standard_normal((len(v), 1, 1))
    whole = C.stripe_ratio(p, v, mask=labels > 0, relative=relative)
    assert whole > 1
    for move in (lambda x: x[::-1], lambda x: x.transpose(0, 2, 1), lambda x: torch.tensor(x)):
        assert C.stripe_ratio(move(p), move(v), mask=move(labels > 0), relative=relative) == pytest.approx(whole)
    turned = [np.moveaxis(x, 0, 2) for x in (p, v, labels > 0)]
    assert C.stripe_ratio(*turned[:2], mask=turned[2], axis=2, relative=relative) == pytest.approx(whole)
    assert C.stripe_ratio(*turned[:2], mask=turned[2], axis=-1, relative=relative) == pytest.approx(whole)
    assert C.stripe_offset(p + 0.3, v, mask=labels > 0) == pytest.approx(C.stripe_offset(p, v, mask=labels > 0))

def test_air_does_not_count(brain):
    v, labels, _ = brain
    dirty = np.where(labels > 0, v, np.random.default_rng(2).random(v.shape))
    assert C.stripe_ratio(dirty, v, mask=labels > 0) == pytest.approx(1)
    assert C.stripe_offset(dirty, v, mask=labels > 0) == 0
    assert C.coverage(dirty, v, 0 * v, mask=labels > 0, levels=(0.5,)) == {0.5: 1.}

def test_tissues(brain):
    v, labels, _ = brain
    mask = labels > 0
    c = C.tissue_comparison(v, v, mask, spacing=(2., 2., 3.))
    assert list(c) == ["volume", "signed", "dice", "hausdorff"] and all(list(d) == ["csf", "gm", "wm"] for d in c.values())
    assert set(c["volume"].values()) == set(c["hausdorff"].values()) == {0} and set(c["dice"].values()) == {1}
    truth = C.tissue_comparison(torch.tensor(v), None, torch.tensor(mask), target_labels=labels, spacing=(2., 2., 3.))
    assert truth["dice"]["wm"] > 0.9 and truth["hausdorff"]["wm"] >= 2
    for k in ("csf", "gm", "wm"): assert truth["volume"][k] == abs(truth["signed"][k])
    assert sum(truth["signed"].values()) == pytest.approx(0)
    shares = [C.tissue_comparison(v, None, mask, target_labels=labels, spacing=s)["signed"]["gm"] for s in (1., 2.)]
    assert shares[1] == pytest.approx(8 * shares[0])
    with pytest.raises(ValueError, match="whole numbers"): C.tissue_comparison(v, None, mask, target_labels=v)
    with pytest.raises(ValueError, match="no slices"): C.tissue_comparison(v[18], v[18], mask[18])

def test_lesions(brain):
    v, labels, lesions = brain
    assert C.lesion_contrast(v, lesions, labels) == pytest.approx(-0.2 / 0.3, abs=0.05)
    assert C.lesion_contrast(v, lesions, labels, per="sd") == pytest.approx(-10, rel=0.1)
    assert C.lesion_contrast(-v, torch.tensor(lesions), torch.tensor(labels)) == pytest.approx(-C.lesion_contrast(v, lesions, labels))
    assert C.lesions_kept(v, v, lesions, labels) == 1 and C.lesions_invented(v, v, lesions, labels) == 0
    filled = np.where(lesions, 0.9, v)
    assert C.lesions_kept(v, filled, lesions, labels) == 0 and math.isnan(C.lesions_kept(filled, v, lesions, labels))
    assert math.isnan(C.lesions_kept(v, v, lesions, labels, target_image=filled))
    inner = C.normal_white_matter(lesions, labels)
    assert (labels[inner] == 3).all() and not (inner & lesions).any()
    assert C.lesions_invented(v, np.where(inner, -v, v), lesions, labels) == pytest.approx(((v > v[inner].mean() + 2 * v[inner].std()) & inner).sum() / inner.sum())
    for wrong, message in ((dict(per="volt"), "unknown unit"), (dict(shell=0.5), "enlarge shell")):
        with pytest.raises(ValueError, match=message): C.lesion_contrast(v, lesions, labels, **wrong)
    with pytest.raises(ValueError, match="no contrast"): C.lesion_contrast(0 * v, lesions, labels)

@settings(max_examples=10, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([None, 2, 5]), st.sampled_from([0.5, 0.68, 0.9]))
def test_one_factor_keeps_the_promise(seed, draws, level):
    rng = np.random.default_rng(seed)
    truth, mean, sd = rng.standard_normal((3, 9, 10, 11)); sd = np.abs(sd) + 0.01
    f = C.scale_for(truth, mean, sd, level=level, draws=draws)
    n = truth.size
    assert level - 2 / n <= C.coverage(truth, mean, f * sd, levels=(level,), draws=draws)[level] <= level + 2 / n
    assert C.scale_for(truth, mean, 3 * sd, level=level, draws=draws) == pytest.approx(f / 3)
    shares = list(C.coverage(truth, mean, sd, draws=draws).values())
    assert shares == sorted(shares)

@pytest.mark.parametrize("n", [2, 3, 4, 19])
def test_extremes_of_samples(n):
    rng = np.random.default_rng(n)
    x, t = rng.random((n, 6, 7, 8)), rng.random((6, 7, 8))
    top = (n - 1) / (n + 1)
    assert C.sample_coverage(t, torch.tensor(x), levels=(top,))[top] == pytest.approx(((x.min(0) <= t) & (t <= x.max(0))).mean())
    with pytest.raises(ValueError, match=f"{n} samples cannot promise"): C.sample_coverage(t, x, levels=(top + 0.01,))
    with pytest.raises(ValueError, match="between 0 and 1"): C.sample_coverage(t, x, levels=(1.,))

def test_needed_samples_are_enough():
    rng = np.random.default_rng(0)
    for level, n in ((0.5, 3), (0.9, 19), (0.95, 39)):
        C.sample_coverage(rng.random((2, 2, 2)), rng.random((n, 2, 2, 2)), levels=(level,))
        with pytest.raises(ValueError, match=f"Draw {n} of them"): C.sample_coverage(rng.random((2, 2, 2)), rng.random((n - 1, 2, 2, 2)), levels=(level,))

def test_bins_rank_and_count(brain):
    v, labels, _ = brain
    sd = np.random.default_rng(1).random(v.shape)
    b = C.error_by_uncertainty(v + sd, v, sd, mask=labels > 0, bins=7)
    assert b.spearman == pytest.approx(1) and b.n.sum() == (labels > 0).sum() and np.ptp(b.n) <= 1
    assert b.rmse == pytest.approx(b.sd) and (np.diff(b.sd) > 0).all()
    assert C.error_by_uncertainty(v + 1 - sd, v, sd, mask=labels > 0).spearman == pytest.approx(-1)

def test_figures_take_any_name(brain):
    v, labels, _ = brain
    fig = C.histogram_figure({"mask": v, "truth": torch.tensor(v), "ndim": 9 * v}, labels > 0, truth=v)
    assert [t.get_text() for t in fig.axes[0].get_legend().get_texts()] == ["truth", "mask", "truth", "ndim"]
    assert fig.axes[0].get_ylim()[1] < (labels > 0).sum()
    C.histogram_figure({"constant": 0 * v})
    with pytest.raises(ValueError, match="NaN"): C.histogram_figure({"a": v * np.nan})

def test_slice_to_slice_knows_a_stack_of_unrelated_slices():
    from scipy.ndimage import gaussian_filter
    rng = np.random.default_rng(0); field = gaussian_filter(rng.standard_normal((32, 33, 34)), 2)
    for axis in range(3):
        unrelated = np.moveaxis(np.moveaxis(field, axis, 0)[rng.permutation(field.shape[axis])], 0, axis)
        assert C.slice_to_slice(field, axis=axis) == pytest.approx(1, abs=0.08) and C.slice_to_slice(unrelated, axis=axis) > 2
        assert C.slice_to_slice(unrelated, axis=axis - 3) == C.slice_to_slice(unrelated, axis=axis)
        assert C.slice_to_slice(7 * unrelated - 2, axis=axis) == pytest.approx(C.slice_to_slice(unrelated, axis=axis))
    inside = np.zeros(field.shape, bool); inside[4:28, 4:28, 4:28] = True
    assert C.slice_to_slice(np.where(inside, field, 100 * rng.random(field.shape)), mask=inside) == pytest.approx(C.slice_to_slice(field, mask=inside))
    with pytest.raises(ValueError, match="several slices"): C.slice_to_slice(field[:1])
    with pytest.raises(ValueError, match="constant"): C.slice_to_slice(0 * field)
    with pytest.raises(ValueError, match="choose 0, 1 or 2"): C.slice_to_slice(field, axis=3)
