"Properties of the low-field operators over sizes and settings that no notebook lists."
import copy
import pytest, torch
from hypothesis import given, settings, strategies as st
from mrbook.mri.low_field import Compose, Identity, InPlane, KSpaceTruncation, ThroughPlane

inplane = st.builds(InPlane, st.floats(1, 6), st.sampled_from(["average", "gaussian", "kspace"]), st.floats(.3, 3))
truncation = st.builds(KSpaceTruncation, st.one_of(st.floats(.05, 1), st.integers(1, 40)), st.one_of(st.none(), st.integers(1, 40)))
through = st.builds(ThroughPlane, st.floats(.3, 9), st.floats(0, 4), st.floats(.5, 2), st.sampled_from(["gaussian", "box"]), st.sampled_from([0, -1, -2]))
single = st.one_of(inplane, truncation, through, st.just(Identity()))
operator = st.one_of(single, st.builds(Compose, single, single))
size = st.tuples(st.integers(1, 9), st.just(2), st.integers(1, 33), st.integers(1, 33))

@settings(max_examples=150, deadline=None)
@given(operator, size, st.integers(0, 99))
def test_adjoint_sizes_and_constants(A, size, seed):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(size, dtype=torch.float64, generator=gen)
    low = A.output_size(*size)
    y = torch.randn(low, dtype=torch.float64, generator=gen)
    assert A(x).shape == low and A.adjoint(y, size).shape == A.upsample(y, size).shape == x.shape
    gap = abs((A(x) * y).sum() - (x * A.adjoint(y, size)).sum())
    assert gap <= 1e-12 * x.norm() * y.norm() * A.norm(*size)
    assert A(x).norm() <= A.norm(*size) * x.norm() * (1 + 1e-9)
    ones = torch.ones(size, dtype=torch.float64)
    assert torch.allclose(A(ones), torch.ones(low, dtype=torch.float64)) and torch.allclose(A.upsample(A(ones), size), ones)

@settings(max_examples=40, deadline=None)
@given(single, size, st.floats(1e-3, 10))
def test_proximal_is_the_minimum(A, size, rho):
    gen = torch.Generator().manual_seed(0)
    z, y = torch.randn(size, dtype=torch.float64, generator=gen), torch.randn(A.output_size(*size), dtype=torch.float64, generator=gen)
    x = A.proximal(z, y, rho)
    assert (A.adjoint(A(x) - y, size) + rho * (x - z)).abs().max() < 1e-9 * max(1, rho) * max(1, A.norm(*size)**2)

@pytest.mark.parametrize("A", [InPlane(2), InPlane(3, "kspace"), KSpaceTruncation(.5), ThroughPlane(5., 1., 1., axis=0)])
def test_nominal_size_is_enough_for_whole_factors(A):
    x = torch.rand(12, 1, 12, 24)
    assert A.input_size(*A.output_size(*x.shape)) == x.shape and torch.equal(A.adjoint(A(x)), A.adjoint(A(x), x.shape))

def test_half_precision_autocast_does_not_reach_the_data_term():
    x = torch.rand(2, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16): y = InPlane(2)(x)
    assert y.dtype == torch.float32 and torch.equal(y, InPlane(2)(x))

def test_operators_travel():
    for A in (InPlane(2), KSpaceTruncation(.5), ThroughPlane(5.), Compose(ThroughPlane(5.), InPlane(2))):
        x = torch.rand(3, 1, 16, 20)
        assert torch.equal(copy.deepcopy(A)(x), A(x))

@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_same_numbers_on_the_gpu():
    x = torch.rand(2, 1, 30, 31, dtype=torch.float64)
    for A in (InPlane(2, "kspace"), ThroughPlane(5.)): assert torch.allclose(A(x.cuda()).cpu(), A(x), atol=1e-12)
