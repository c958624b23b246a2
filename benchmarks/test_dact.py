"""DACT against its floor, the denoiser calls that every diffusion solver must make, and a whole volume on the clock.

    python -m pytest benchmarks/test_dact.py -q        writes benchmarks/results/dact.json
"""
import json, os, subprocess, sys

import pytest, torch

VOLUME = """
import json, resource, time, numpy as np, torch
from mrbook.methods.dact.dact import DACT
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.scans.volume import Volume
a = phantom(3000); low = image(a, Contrast("t2w", 0.2), noise=0.02)[:, :, 18:78]
tick = time.perf_counter(); out = DACT.from_pretrained("t2w").translate_volume(Volume(low, a.affine))
print(json.dumps(dict(seconds=time.perf_counter() - tick, slices=low.shape[2], peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, threads=torch.get_num_threads())))
"""


@pytest.fixture(scope="module")
def problem():
    from mrbook.methods.dact.dact import DACTConfig, LUTMap
    from mrbook.methods.dact.scores import make_bench
    from mrbook.methods.dact.prior import load_prior
    bench = make_bench("t1w", "SPGR", subjects=4, slices=2, split="val")
    prior, anchors = load_prior()
    y = bench.y[:, :, 4:-4] # 48 x 48 of 4 mm: 96 x 96 at 2 mm
    return prior, anchors[0], y.contiguous(), bench.operator, bench.subject, DACTConfig(), LUTMap


def test_overhead_over_the_denoiser(problem, note, in_turns):
    "Total time of DACT over the same 50 denoiser calls alone, in turns, median of the ratios."
    from mrbook.methods.dact.dact import restore
    prior, anchor, y, operator, subject, config, LUTMap = problem
    label, x = torch.zeros(len(y), dtype=torch.long), torch.randn(len(y), 1, 96, 96, generator=torch.Generator().manual_seed(0))
    calls = torch.linspace(999, 0, config.steps).round().long().tolist()
    def floor():
        with torch.no_grad():
            for t in calls: prior.predict_x0(x, t, label)
    def ours(**options):
        restore(prior, y, operator, LUTMap(y, config, anchor, operator, subject), (96, 96), config, label, torch.Generator().manual_seed(0))
    ratio, all, seconds = in_turns(floor, ours)
    note(overhead=dict(ratio_to_50_denoiser_calls=round(ratio, 3), all=all, seconds=round(seconds, 2), batch=len(y), size=[96, 96], threads=torch.get_num_threads()))
    assert ratio <= 1.5, all


def test_volume_of_sixty_slices(note):
    "A whole scan at 2 mm in its own process: time and peak memory."
    run = subprocess.run([sys.executable, "-c", VOLUME], capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")})
    found = json.loads(run.stdout.splitlines()[-1])
    note(volume={k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()})
    assert found["slices"] == 60 and found["seconds"] <= 240 and found["peak_gb"] <= 3
