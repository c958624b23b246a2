"A training process that is really killed, and really resumed."
import json, signal, subprocess, sys, time

import pytest

RUN = '''
import sys, time, torch
from torch import nn
from mrbook.training import train, batch_at
folder, pause = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0); torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Dropout(.2), nn.Linear(16, 1))
x = torch.linspace(-1, 1, 40)[:, None]
def data(step, generator):
    time.sleep(pause)
    return batch_at((x, x.square()), step, 8, 3)
def loss(model, batch, generator):
    return (model(batch[0] + .1 * torch.randn(batch[0].shape, generator=generator)) - batch[1]).square().mean()
run = train(model, loss, data, folder, steps=80, lr=1e-2, ema=.9, log_every=1, checkpoint_seconds=.1, device="cpu", progress=False)
print(run.stopped, run.step)
'''

def start(folder, pause=0.): return subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(pause)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err[-2000:]
    return out.split()

def lines(folder):
    path = folder / "log.jsonl"
    return [json.loads(l) for l in path.read_text().splitlines()] if path.exists() else []

def losses(folder): return [l["loss"] for l in lines(folder)]

def wait_for_step(folder, step, process):
    while len(lines(folder)) < step:
        assert process.poll() is None, process.stderr.read()
        time.sleep(.02)

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert finish(start(folder)) == ["steps", "80"]
    return folder

@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_resumed_is_the_same_run(whole, tmp_path, how):
    process = start(tmp_path, pause=.02)
    wait_for_step(tmp_path, 20, process)
    process.send_signal(how)
    if how == signal.SIGTERM: assert finish(process)[0] == "interrupted"
    else: process.communicate(timeout=60)
    assert (tmp_path / "checkpoint.safetensors").exists() and not list(tmp_path.glob(".*.tmp"))
    assert finish(start(tmp_path)) == ["steps", "80"]
    assert losses(tmp_path) == losses(whole)
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
