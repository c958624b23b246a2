"""Look-up tables by entropic transport, and soft histograms: ours beside POT, geomloss and kornia on the same work.

    pytest benchmarks/test_sinkhorn_lut.py

POT comes with the project; geomloss and kornia are the `bench` extra and are skipped where they are missing. Every time is CPU time on one thread, which a busy machine disturbs least, and the
best of its rounds; all are taken in one run, and their ratios go to benchmarks/results/sinkhorn_lut.json. POT stops at a Euclidean marginal error of 1e-6, ours at an L1 error of 1e-6, which is the stricter of the two.
"""
import json, os, platform, subprocess, sys, textwrap, time
os.environ.setdefault("OMP_NUM_THREADS", "1")
from importlib import metadata
from pathlib import Path
import pytest, torch, ot
from mrbook.generative.sinkhorn_lut import bin_centers, quantile_lut, sinkhorn_lut, sinkhorn_potential, soft_histogram, transport_plan

BINS, FLOOR, TOL = 256, 1e-8, 1e-6
pytestmark = pytest.mark.benchmark(timer=time.process_time)
RESULTS = Path(__file__).parent / "results" / "sinkhorn_lut.json"
MOST = {("sinkhorn_log", 1e-3): 20_000, ("sinkhorn_stabilized", 1e-3): 20_000,  # iterations granted to POT;
        ("sinkhorn_log", 1e-4): 2_000, ("sinkhorn_stabilized", 1e-4): 20_000}  # where they do not suffice, its time is a lower bound


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def book():
    "Times in ms and notes of this run; written at its end."
    page = dict(ms={}, notes={}, memory_mb={})
    yield page
    if page["ms"]: write(page)


@pytest.fixture(scope="module")
def histograms():
    "Four tissue classes at high field, their compressed copy at low field: (1, BINS) each, with the floor."
    g = torch.Generator().manual_seed(0)
    means, share = torch.tensor([.12, .45, .7, .9]), torch.tensor([.15, .4, .4, .05])
    draw = lambda: (means[torch.multinomial(share, 8000, True, generator=g)] + .04 * torch.randn(8000, generator=g)).clamp(0, 1).double()[None]
    high, low = draw(), .1 + .55 * draw()**.7 + .01 * torch.randn(1, 8000, generator=g)
    floored = [soft_histogram(x, BINS) + FLOOR for x in (high, low)]
    return [h / h.sum() for h in floored]


def clock(benchmark, book, name, f, rounds=15):
    out = benchmark.pedantic(f, rounds=rounds, warmup_rounds=1 if rounds > 1 else 0)
    if benchmark.stats is not None: book["ms"][name] = benchmark.stats.stats.min * 1e3
    return out


def cost(): return ((bin_centers(BINS)[:, None] - bin_centers(BINS))**2).numpy()


@pytest.mark.parametrize("epsilon", (1e-2, 3e-3, 1e-3, 1e-4))
@pytest.mark.parametrize("batch", (1, 8))
def test_ours(benchmark, book, histograms, epsilon, batch):
    source, target = (h.repeat(batch, 1) for h in histograms)
    lut, found = clock(benchmark, book, f"ours {epsilon:.0e} batch {batch}", lambda: sinkhorn_lut(source, target, epsilon, tol=TOL, full_output=True))
    assert found.error.max() < TOL and lut.diff().min() > -1e-12
    book["notes"][f"ours {epsilon:.0e} batch {batch}"] = f"{found.iterations[0]} iterations, L1 error {found.error.max():.0e}"


@pytest.mark.parametrize("epsilon", (1e-3, 1e-4))
def test_ours_gradient(benchmark, book, histograms, epsilon):
    source, target = (h.clone().requires_grad_() for h in histograms)
    readout = torch.sin(bin_centers(BINS) * 9)
    clock(benchmark, book, f"ours {epsilon:.0e} with gradient", lambda: torch.autograd.grad(sinkhorn_lut(source, target, epsilon, tol=TOL)[0] @ readout, (source, target)))


@pytest.mark.parametrize("batch", (1, 8, 64))
def test_quantile(benchmark, book, histograms, batch):
    source, target = (h.repeat(batch, 1) for h in histograms)
    clock(benchmark, book, f"quantile_lut batch {batch}", lambda: quantile_lut(source, target))


def test_emd_1d(benchmark, book, histograms):
    c, (a, b) = bin_centers(BINS).numpy(), (h[0].numpy() for h in histograms)
    clock(benchmark, book, "POT emd_1d", lambda: ot.emd_1d(c, c, a, b))


@pytest.mark.parametrize("method", ("sinkhorn_log", "sinkhorn_stabilized"))
@pytest.mark.parametrize("epsilon", (1e-3, 1e-4))
def test_pot(benchmark, book, histograms, method, epsilon):
    a, b = (h[0].numpy() for h in histograms)
    run = lambda: ot.sinkhorn(a, b, cost(), epsilon, method=method, numItermax=MOST[method, epsilon], stopThr=TOL, warn=False)
    plan = clock(benchmark, book, f"POT {method} {epsilon:.0e}", run, rounds=3 if epsilon == 1e-3 else 1)
    error = float(abs(plan.sum(0) - b).sum() + abs(plan.sum(1) - a).sum())
    ours = transport_plan(*[h for h in histograms[:1]], sinkhorn_potential(*histograms, epsilon, floor=1e-12, tol=TOL), epsilon, floor=1e-12)[0].numpy()
    distance = float(abs(ours - plan).sum())
    book["notes"][f"POT {method} {epsilon:.0e}"] = f"L1 marginal error {error:.0e}, L1 distance to our plan {distance:.0e}"
    if error < 1e-4: assert distance < 30 * max(error, TOL)


@pytest.mark.parametrize("epsilon", (1e-3, 1e-4))
def test_geomloss(benchmark, book, histograms, epsilon):
    geomloss = pytest.importorskip("geomloss")
    c, (a, b) = bin_centers(BINS)[None, :, None], histograms
    solve = geomloss.SamplesLoss("sinkhorn", p=2, blur=(epsilon / 2)**.5, scaling=.9, debias=False, potentials=True, backend="tensorized")
    _, g = clock(benchmark, book, f"geomloss {epsilon:.0e}", lambda: solve(a, c, b, c), rounds=5)
    v = (2 * g.view(1, -1) / epsilon + b.log())
    error = (transport_plan(a, v, epsilon, floor=1e-12).sum(1) - b).abs().sum().item()
    book["notes"][f"geomloss {epsilon:.0e}"] = f"scaling 0.9, which fixes its iterations: L1 marginal error {error:.0e}"


def image(): return torch.rand(1, 256 * 256, generator=torch.Generator().manual_seed(0))


def ours_histogram(x): return soft_histogram(x, BINS)


def kornia_histogram(x):
    from kornia.enhance import histogram
    return histogram(x, bin_centers(BINS, dtype=x.dtype), torch.tensor(1 / BINS, dtype=x.dtype))


def forward_backward(f, x):
    x = x.clone().requires_grad_()
    h = f(x)
    return h.detach(), torch.autograd.grad(h @ torch.sin(9 * bin_centers(BINS, dtype=x.dtype)), x)[0]


PEAK = """
    import sys, torch
    torch.set_num_threads(1)
    sys.path.insert(0, {here!r})
    import test_sinkhorn_lut as t
    peak = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
    t.forward_backward(t.{name}, torch.rand(1, 256))
    before = peak()
    t.forward_backward(t.{name}, t.image())
    print((peak() - before) / 1024)
"""


def peak_mb(name):
    "Growth of the peak resident memory of a fresh process by one forward and backward pass (Linux only)."
    if not Path("/proc/self/status").exists(): pytest.skip("peak memory is read from /proc")
    code = textwrap.dedent(PEAK.format(here=str(Path(__file__).parent), name=name))
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1])


@pytest.mark.parametrize("name", ("ours_histogram", "kornia_histogram"))
def test_histogram(benchmark, book, name):
    if name.startswith("kornia"): pytest.importorskip("kornia")
    h, g = clock(benchmark, book, name, lambda: forward_backward(globals()[name], image()), rounds=10 if name.startswith("ours") else 3)
    book["memory_mb"][name] = peak_mb(name)
    if name.startswith("kornia"):
        h0, g0 = forward_backward(ours_histogram, image())
        value, grad = ((h - h0).abs().max() / h.max()).item(), ((g - g0).norm() / g.norm()).item()
        book["notes"]["histogram"] = f"ours against kornia: values to {value:.0e} of the peak, gradient to {grad:.0e}"
        assert value < 1e-4 and grad < 5e-3


BARS = {"POT sinkhorn_log / ours, 1e-03": 15, "POT sinkhorn_stabilized / ours, 1e-03": 4, "POT sinkhorn_log / ours, 1e-04": 100, "POT sinkhorn_stabilized / ours, 1e-04": 100,
        "kornia / ours, histogram time": 10, "kornia / ours, histogram memory": 10}


def ratios(page):
    ms, found = page["ms"], {}
    for e in ("1e-03", "1e-04"):
        for peer in ("POT sinkhorn_log", "POT sinkhorn_stabilized", "geomloss"):
            if f"{peer} {e}" in ms and f"ours {e} batch 1" in ms: found[f"{peer} / ours, {e}"] = ms[f"{peer} {e}"] / ms[f"ours {e} batch 1"]
    if "kornia_histogram" in ms: found["kornia / ours, histogram time"] = ms["kornia_histogram"] / ms["ours_histogram"]
    if len(page["memory_mb"]) == 2: found["kornia / ours, histogram memory"] = page["memory_mb"]["kornia_histogram"] / max(page["memory_mb"]["ours_histogram"], 0.1)
    if "ours 1e-03 batch 8" in ms: found["ours 1e-03 per slice of 8 / exact map per slice of 64"] = ms["ours 1e-03 batch 8"] / 8 / (ms["quantile_lut batch 64"] / 64)
    return found


def write(page):
    known = {p: metadata.version(p) for p in ("torch", "numpy", "POT", "geomloss", "kornia") if any(True for _ in metadata.distributions(name=p))}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread, CPU time"
    rounded = lambda d: {k: float(f"{v:.3g}") for k, v in d.items()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(dict(work=f"{BINS} bins, float64, CPU, marginal error {TOL}; histogram of a 256 x 256 slice, float32, forward and backward", machine=machine, versions=known,
        ratios=rounded(ratios(page)), bars=BARS, ms=rounded(page["ms"]), memory_mb=rounded(page["memory_mb"]), notes=page["notes"]), indent=1) + "\n")


def test_bars(book):
    "The project's bars, wherever both sides were timed in this run."
    found = ratios(book)
    missed = {k: f"{found[k]:.1f} < {bar}" for k, bar in BARS.items() if k in found and found[k] < bar}
    assert not missed, missed
