"A training process that is really killed, and really resumed."
import json, os, signal, socket, subprocess, sys, time

import pytest

from mrbook.learn.loop import load_tensors

RUN = '''
import sys, time, torch
from torch import nn
from mrbook.learn.loop import train, batch_at
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


TWO = '''
import os, sys, torch
from torch import nn
rank = int(os.environ.get("RANK", 0)); out = sys.argv[1]
from mrbook.learn.loop import Game, load_tensors, play, start_game, train
class Cloud(Game):
    def __init__(self):
        super().__init__()
        self.refiner, self.judge = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))
    def players(self): return dict(discriminator=[self.judge], generator=[self.refiner])
    def rates(self): return dict(generator=[.5])
    def turns(self, batch, rng):
        fake = self.refiner(batch[0])
        yield "discriminator", dict(real=(self.judge(batch[1]) - 1).square().mean(), fake=self.judge(fake.detach()).square().mean())
        yield "generator", dict(fooled=(self.judge(fake) - 1).square().mean())
x = torch.linspace(-1, 1, 64)[:, None]; data = x, torch.sin(3 * x)
options = dict(steps=12, batch_size=int(sys.argv[2]), lr=1e-2, warmup=0, decay="none", ema=0., log_every=4, device="cpu", progress=False, clip=1.)
torch.manual_seed(rank) # each process begins with weights of its own
net = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))
one = train(net, lambda m, b, g: (m(b[0]) - b[1]).square().mean(), data, f"{out}/train", **options)
two = play(start_game(Cloud, rank), data, f"{out}/play", **options)
for name, run in dict(train=one, play=two).items():
    kept = load_tensors(f"{out}/{name}/model.safetensors")[0]
    assert all(torch.equal(v, kept[k]) for k, v in run.model.state_dict().items()), f"{name}: process {rank} has other weights"
'''


def test_two_processes_are_one_run_with_twice_the_batch(tmp_path):
    "As `accelerate launch` starts them; the gradients are averaged, the weights and files are those of one process."
    def begin(out, batch, **more): return subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path / out), str(batch)], env=os.environ | more, stderr=subprocess.PIPE, text=True)
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = str(s.getsockname()[1])
    both = dict(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, ACCELERATE_USE_CPU="true")
    for p in [begin("two", 4, RANK=k, LOCAL_RANK=k, **both) for k in "01"] + [begin("one", 8)]: err = p.communicate(timeout=120)[1]; assert p.returncode == 0, err[-2000:]
    for name in ("train", "play"):
        a, b = (load_tensors(tmp_path / way / name / "model.safetensors")[0] for way in ("one", "two"))
        assert all((a[k] - b[k]).abs().max() < 1e-5 for k in a) and any(v.abs().max() > .1 for v in a.values())
