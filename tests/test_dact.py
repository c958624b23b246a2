"""DACT: every option at its ends, and slices of one scan that hold each other"""
import math
from dataclasses import fields

import pytest, torch
from mrbook.evaluate.consistency import slice_to_slice
from mrbook.generative.diffusion import Diffusion, Schedule
from mrbook.methods.dact import dact
from mrbook.methods.dact.dact import DACT, DACT_RANGES, DACTConfig
from mrbook.nets.unet import UNet, UNetConfig

@pytest.fixture(scope="module")
def slices():
    "Ten neighbouring discs that shrink slowly, with noise; and an anchor."
    r = torch.hypot(*torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 24), indexing="ij"))
    disc = torch.stack([0.8 * (r < 0.9 - 0.02 * i) - 0.4 * (r < 0.5) + 0.1 * (r < 0.3) for i in range(10)])[:, None]
    return (disc + 0.03 * torch.randn(disc.shape, generator=torch.Generator().manual_seed(0))).abs().clamp(0, 1), disc

def method(slices, **options):
    torch.manual_seed(0)
    prior = Diffusion(UNet(UNetConfig.preset("tiny", classes=4)), Schedule("cosine"), "v").eval()
    batch = options.pop("batch_size", 4)
    return DACT(prior, slices[1], 0, DACTConfig(**(dict(steps=3) | options)), batch_size=batch)

ENDS = [dict(freeze=0.), dict(freeze=1.), dict(steps=1), dict(zeta=0.), dict(lam=1e-6), dict(lam=1e6), dict(sigma=0.), dict(sigma=1.),
    dict(start_step=0), dict(start_step=999), dict(steps=1, start_step=500), dict(bins=2), dict(bins=512), dict(width=1.), dict(width=1 / 256),
    dict(bins=2, width=1 / 4), dict(epsilon=0.), dict(epsilon=1e-4), dict(epsilon=10.), dict(rim=100), dict(cohort=0.), dict(cohort=1.),
    dict(rounds=1, histogram_of="forward", variant="anchored"), dict(weight_map="regularised", weight_penalty=0.), dict(weight_map="regularised", weight_penalty=1e6),
    dict(solver="adam", adam_steps=1), dict(solver="adam", adam_lr=1., adam_steps=2), dict(coupling=0.), dict(coupling=100.),
    dict(solver="adam", adam_steps=2, coupling=1.), dict(variant="instance", freeze=0.), dict(shared_noise=True), dict(histogram_of="image", rim=100)]

@pytest.mark.parametrize("through", [None, 2.])
@pytest.mark.parametrize("options", ENDS, ids=str)
def test_the_ends_of_every_option_work(slices, options, through):
    out = method(slices, **options).translate(slices[0][:5], None, through)
    assert out.shape == slices[0][:5].shape and out.isfinite().all() and 0 <= out.min() and out.max() <= 1

BEYOND = [(name, v) for name, (low, high, whole) in DACT_RANGES.items()
    for v in (low - 1, high + 1, math.nan, math.inf, "3", True, [1], *([low + 0.5] if whole else []))]

@pytest.mark.parametrize("name, value", BEYOND, ids=str)
def test_beyond_the_ends_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a"): DACTConfig(**{name: value})

def test_every_number_has_a_range():
    numbers = {f.name for f in fields(DACTConfig) if str(f.type).split(".")[0].removesuffix("|None") in ("int", "float") or f.type in (int, float, int | None, float | None)}
    assert numbers == set(DACT_RANGES)

def test_a_width_below_half_a_bin_is_refused():
    with pytest.raises(ValueError, match="too narrow"): DACTConfig(width=1 / 300)

def test_an_entropy_too_small_to_converge_is_refused():
    with pytest.raises(ValueError, match="give 0"): DACTConfig(epsilon=1e-7)

def test_the_none_that_means_measured_is_only_for_its_fields():
    for name in set(DACT_RANGES) - {"sigma", "start_step", "width"}:
        with pytest.raises(ValueError, match=f"{name} must be a"): DACTConfig(**{name: None})

@pytest.mark.parametrize("flag", ["debias", "stop_gradient", "shared_noise"])
def test_a_flag_is_true_or_false(flag):
    with pytest.raises(ValueError, match=flag): DACTConfig(**{flag: "no"})

def test_the_batch_does_not_matter_to_a_scan(slices):
    one, three, all_ = (method(slices, batch_size=b).translate(slices[0], None, 2.) for b in (1, 3, 10))
    assert (one - three).abs().max() < 1e-4 and (one - all_).abs().max() < 1e-4

def test_same_seed_same_bits_and_another_seed(slices):
    m = method(slices); a, b = (m.translate(slices[0], None, 2.) for _ in range(2))
    assert torch.equal(a, b); m.seed = 1
    assert not torch.equal(a, m.translate(slices[0], None, 2.))

def test_unrelated_slices_do_not_see_each_other(slices):
    m = method(slices, variant="anchored", sigma=0.03, batch_size=10); x = slices[0]; other = x.clone(); other[5] = x[5].flip(-2) * 0.9
    def moved(through): # how far the answers of the neighbours move when one slice is another
        a, b = m.translate(x, None, through), m.translate(other, None, through)
        return (a - b).abs().amax((1, 2, 3))[[3, 4, 6, 7]]
    # the table is the scan's, so it is held fixed: all that is left is the coupling
    keep, dact.LUTMap.from_anchor = dact.LUTMap.from_anchor, lambda self, operator: None
    try: far, thick, near = (moved(t) for t in (None, 5., 2.))
    finally: dact.LUTMap.from_anchor = keep
    assert far.max() == 0 and thick.max() == 0 and near.min() > 1e-5

def test_more_coupling_is_less_change_across_slices(slices):
    x = slices[0]; rough = [slice_to_slice(method(slices, coupling=c).translate(x, None, 2.)[:, 0], axis=0) for c in (0., 0.06, 2.)]
    assert rough[0] > rough[1] > rough[2]

def test_thick_slices_are_as_uncoupled_ones(slices):
    m, free = method(slices), method(slices, coupling=0.)
    assert torch.equal(m.translate(slices[0], None, 5.), free.translate(slices[0], None, 2.))

def test_the_ratio_of_the_last_scan_is_kept(slices):
    m = method(slices); assert m.stripe_ratio is None
    m.translate(slices[0], None, 2.); assert set(m.stripe_ratio) == {"input", "answer"} and all(v > 0 for v in m.stripe_ratio.values())
    m.translate(slices[0][:1], None, 2.); assert m.stripe_ratio == {"input": None, "answer": None}
    m.translate(slices[0]); assert m.stripe_ratio is None, "of unrelated slices there is none"

@pytest.mark.parametrize("through", [0., -2., math.nan, math.inf])
def test_a_distance_is_a_distance(slices, through):
    with pytest.raises(ValueError, match="mm between neighbouring slices"): method(slices).translate(slices[0], None, through)

def test_no_step_is_no_answer(slices):
    m = method(slices)
    with pytest.raises(ValueError, match="at least one step"):
        dact.restore(m.prior, slices[0], m.operator((2., 2.)), dact.ContrastMap(), (32, 24), m.config, torch.zeros(10).long(), until=0)
    with pytest.raises(ValueError, match="start_step"): # a schedule of fewer steps
        short = Diffusion(m.prior.net, Schedule("cosine", 100), "v")
        DACT(short, slices[1], 0, DACTConfig(steps=3, start_step=500)).translate(slices[0])
