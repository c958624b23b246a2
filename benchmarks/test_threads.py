"""Two threads, with and without a neighbour that holds one of their two cores: waiting asleep (what mrbook asks for) beside waiting awake (GCC's default).

    python -m pytest benchmarks/test_threads.py -q        writes benchmarks/results/threads.json
"""
import os, statistics, subprocess, sys

import pytest

WORK = """
import json, time
from mrbook.methods.dact.dact import DACT, DACTConfig
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.scans.volume import Volume
a = phantom(3000); low = image(a, Contrast("t2w", 0.2), noise=0.02)[:, :, 28:34]
for steps in (1, 3): # the first pass loads and warms up
    tick = time.perf_counter()
    DACT.from_pretrained("t2w", "cpu", config=DACTConfig(steps=steps)).translate_volume(Volume(low, a.affine))
print(time.perf_counter() - tick)
"""
SPIN = "while True: pass"
AWAKE = dict(GOMP_SPINCOUNT="300000") # of libgomp where OMP_WAIT_POLICY is not set; it goes before the policy
PAIRS = {"asleep, alone": ({}, False), "awake, alone": (AWAKE, False), "asleep, neighbour": ({}, True), "awake, neighbour": (AWAKE, True)}


def seconds(cores, variables, neighbour):
    "Three steps of `enhance` on six slices, two threads on two cores; with a busy loop on the second of them or not."
    pin = lambda chosen: lambda: os.sched_setaffinity(0, chosen)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_", "KMP_"))}
    busy = subprocess.Popen([sys.executable, "-c", SPIN], preexec_fn=pin(cores[1:])) if neighbour else None
    try: run = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True, env=clean | dict(OMP_NUM_THREADS="2") | variables, preexec_fn=pin(cores))
    finally:
        if busy: busy.kill(); busy.wait()
    return float(run.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="pins processes to two cores, which needs Linux and two cores")
def test_a_neighbour_on_one_of_two_cores(note, rounds=3):
    "All four in turns, so that what else the machine does meets them alike; medians of the ratios within a round."
    cores = sorted(os.sched_getaffinity(0))[:2]
    found = [{name: seconds(cores, *pair) for name, pair in PAIRS.items()} for _ in range(rounds)]
    ratio = lambda a, b: [round(r[a] / r[b], 2) for r in found]
    ratios = {f"{a} / {b}": ratio(a, b) for a, b in (("awake, neighbour", "asleep, neighbour"), ("awake, alone", "asleep, alone"), ("asleep, neighbour", "asleep, alone"), ("awake, neighbour", "awake, alone"))}
    medians = {k: statistics.median(v) for k, v in ratios.items()}
    note(medians=medians, ratios=ratios, seconds={k: [round(r[k], 2) for r in found] for k in PAIRS}, load=[round(x, 1) for x in os.getloadavg()])
    assert medians["awake, neighbour / asleep, neighbour"] > 1.5 and medians["asleep, neighbour / asleep, alone"] < 4, ratios
