"""What every benchmark needs: a clock that compares in turns, and a results file that is never half-written."""
import json, time
from pathlib import Path

import pytest


@pytest.fixture
def note(request):
    "Merge values into results/<name of the benchmark>.json, by way of a temporary file."
    path = Path(__file__).parent/"results"/f"{request.path.stem.removeprefix('test_')}.json"
    def write(**values):
        old = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part"); part.write_text(json.dumps(old | values, indent=1) + "\n"); part.replace(path)
    return write


@pytest.fixture
def in_turns():
    "Median of the ratios ours / floor over rounds, all of them, and the median seconds of ours."
    def measure(floor, ours, rounds=5):
        floor(); ours(); ratios, seconds = [], []
        for _ in range(rounds):
            a = time.perf_counter(); floor(); b = time.perf_counter(); ours(); c = time.perf_counter()
            ratios.append((c - b) / (b - a)); seconds.append(c - b)
        return sorted(ratios)[rounds // 2], [round(r, 3) for r in ratios], sorted(seconds)[rounds // 2]
    return measure
