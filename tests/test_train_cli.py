"""The four `mrbook train` commands keep their word: steps and minutes bound the whole run, nothing is lost, and a curve is drawn."""
import json, signal, subprocess, sys, time
from dataclasses import asdict, replace

import matplotlib.pyplot as plt
import pytest
import torch

from mrbook import cli
from mrbook.methods.fgsb import baselines as fgsb_baselines, fgsb, files as fgsb_files
from mrbook.methods.harmonize import baselines as harmonize_baselines, ddpm as harmonize
from mrbook.methods.ot import baselines as ot_baselines, files as ot_files, ot as ot_recon
from mrbook.methods.unsb import baselines as unsb_baselines, files as unsb_files, unsb as unsb_dmd2
from mrbook.mri.phantom import image, phantom
from mrbook.mri.physics import Contrast
from mrbook.cohorts.travellers import AVANTO, SKYRA, session
from mrbook.cohorts.missing_contrast import task_subject
from mrbook.cohorts.portable import phantom_person
from mrbook.scans.volume import Volume, write_volume
from mrbook.learn.loop import Recipe, TrainConfig, load_tensors, read_log

STAGES = dict(fgsb=[""], unsb=["teacher", "critic", ""], ot=["align", "ot"], harmonize=[""])
WAYS = dict(fgsb=["--pairs", "fgsb.csv", "--to", "t2w"], unsb=["--source", "low", "--target", "high"], ot=["--pairs", "ot.csv"], harmonize=["travellers"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A few phantoms of 4 mm as the files that each command reads."
    root = tmp_path_factory.mktemp("train"); tables = dict(fgsb=[], ot=[])
    for k, split in enumerate(("train", "val")):
        pair, head = task_subject("t2w", 5000 + 500 * k, spacing=4.), phantom(7960 + k, 4., head=True)
        t1, t2 = (Volume(image(head, Contrast(w, 3.)), head.affine) for w in ("t1w", "t2w"))
        for table, a, b in (("fgsb", pair.source, pair.target), ("ot", t1, t2)):
            write_volume(a, root / f"{table}{k}_a.nii.gz"); write_volume(b, root / f"{table}{k}_b.nii.gz")
            tables[table].append(f"s{k},{table}{k}_a.nii.gz,{table}{k}_b.nii.gz,{split}")
        for side, seed in (("low", 6000 + k), ("high", 6300 + k)):
            (root / side).mkdir(exist_ok=True)
            write_volume(getattr(phantom_person(seed, side == "low", side == "high", ("t1w",), 4.), side)["t1w"], root / side / f"{side}{k}.nii.gz")
        anatomy = phantom(4104 + k, 4.); (root / "travellers" / f"p{k}").mkdir(parents=True)
        for machine, name in ((AVANTO, "1.5T"), (SKYRA, "3T")): write_volume(session(anatomy, machine)[0], root / "travellers" / f"p{k}" / f"{name}.nii.gz")
    for name, lines in tables.items(): (root / f"{name}.csv").write_text("\n".join(["subject,source,target,split", *lines]))
    return root


def train(command, out, *options): return cli.main(["train", command, *WAYS[command], "-o", str(out), "--preset", "tiny", "--device", "cpu", *options])


@pytest.fixture
def coarse(folder, monkeypatch):
    "The commands in that folder, on a grid of 4 mm or 8 mm in place of their 2 mm."
    monkeypatch.chdir(folder)
    for module, name, at in ((fgsb_files, "pair_cohort", 4.), (ot_files, "pair_cohort", 8.)):
        monkeypatch.setattr(module, name, lambda rows, spacing, split, at=at, load=getattr(module, name): load(rows, at, split))
    monkeypatch.setattr(unsb_files, "load_people", lambda found, load=unsb_files.load_people, **options: load(found, **options | dict(spacing=4.)))
    monkeypatch.setattr(unsb_files, "heap", lambda *a, load=unsb_files.heap, **options: load(*a, **options | dict(size=(64, 56))))
    monkeypatch.setattr(harmonize, "load_travellers", lambda root, marks, load=harmonize.load_travellers: load(root, marks, 4.))


@pytest.mark.parametrize("command", list(WAYS))
def test_steps_bound_the_whole_run(coarse, tmp_path, capsys, command):
    out = tmp_path / "own"
    assert train(command, out, "--steps", "7") == 0
    assert "(7 steps" in capsys.readouterr().out
    logs = [read_log(out / s) for s in STAGES[command]]
    assert all(logs) and sum(l[-1]["step"] for l in logs) == 7
    assert "validation" in logs[-1][-1] and logs[-1][-1]["step"] == max(l["step"] for l in logs[-1]), "it ends with a validation"
    assert plt.imread(out / "curve.png").shape == (280 * len(logs), 900, 4)
    assert (out / "manifest.json").is_file() and not list(out.rglob(".*.tmp"))


@pytest.mark.parametrize("command", list(WAYS))
def test_minutes_bound_the_whole_run(coarse, tmp_path, capsys, command):
    out = tmp_path / "own"
    assert train(command, out, "--minutes", "0.08") == 0
    last = read_log(out / STAGES[command][-1]); lines = [l for l in last if "lr" in l]
    counters = load_tensors(out / STAGES[command][-1] / "checkpoint.safetensors")[1]["counters"]; begun, look = counters["begun"], counters["look"]
    each = (lines[-1]["minutes"] - begun) / lines[-1]["step"]
    assert [l for l in last if "validation" in l][-1]["step"] == lines[-1]["step"] and (out / "curve.png").is_file()
    assert lines[-1]["minutes"] < max(0.08, begun) + 3 * each + look + .02, "a step and a validation late at the most"


KILLED = '''
import sys
from pathlib import Path
from mrbook.methods.ot.{module} import {function} as fit
fit(*sys.argv[2:], **{more}, folder=Path(sys.argv[1]), preset="tiny", device="cpu", checkpoint_seconds=0., log_every=1, progress=False)
'''
FITS = dict(
    ot=("files", "train_recon_on_pairs", ["ot.csv"], dict(spacing=8., steps=8), "align"))


@pytest.mark.parametrize("command", list(FITS))
def test_killed_in_the_first_stage_and_resumed_is_the_same_run(folder, tmp_path, command):
    module, function, files, more, stage = FITS[command]
    code = KILLED.format(module=module, function=function, more=more)
    run = lambda out: subprocess.Popen([sys.executable, "-c", code, str(out), *files], cwd=folder, stderr=subprocess.PIPE, text=True)
    whole = run(tmp_path / "whole"); broken = run(tmp_path / "broken")
    while len(read_log(tmp_path / "broken" / stage)) < 2:
        assert broken.poll() is None, broken.stderr.read()
        time.sleep(.01)
    broken.send_signal(signal.SIGKILL); broken.communicate()
    assert load_tensors(tmp_path / "broken" / stage / "checkpoint.safetensors")[1]["counters"]["step"] >= 1
    again = run(tmp_path / "broken")
    for p in (whole, again): err = p.communicate(timeout=300)[1]; assert p.returncode == 0, err[-2000:]
    found = [{f.relative_to(tmp_path / k): load_tensors(f)[0] for f in (tmp_path / k).rglob("model.safetensors")} for k in ("whole", "broken")]
    assert len(found[0]) == len(STAGES[command]) and found[0].keys() == found[1].keys()
    assert all((found[0][f][k] == found[1][f][k]).all() for f in found[0] for k in found[0][f])
    losses = [[{k: v for k, v in l.items() if k != "minutes"} for s in STAGES[command] for l in read_log(tmp_path / way / s)] for way in ("whole", "broken")]
    assert json.dumps(losses[0]) == json.dumps(losses[1])


def test_a_minute_at_most_is_lost(): assert TrainConfig().checkpoint_seconds <= 45


def test_lines_where_there_is_no_terminal(capsys):
    from mrbook.learn.loop import Progress
    with Progress("bridge", 100, every=0.) as show: show(7, "loss 0.1")
    assert capsys.readouterr().err == "bridge: step 7 of 100, loss 0.1\n"


@pytest.mark.parametrize("options, word", [(["--brain", "nowhere"], "nowhere"), (["--teacher-steps", "4"], "whole run")])
def test_unsb_refuses(folder, tmp_path, capsys, monkeypatch, options, word):
    monkeypatch.chdir(folder)
    assert train("unsb", tmp_path / "own", "--steps", "8", *options) == 2
    assert word in capsys.readouterr().err and not (tmp_path / "own").exists()


CONFIGS = [fgsb.FGSBConfig, fgsb_baselines.Pix2pixConfig, fgsb_baselines.L1Config, unsb_dmd2.UNSBConfig, unsb_baselines.CUTConfig, unsb_baselines.CycleConfig,
           ot_recon.OTReconConfig, ot_baselines.VarNetRunConfig, ot_baselines.SANConfig, harmonize.HarmonizeConfig, harmonize_baselines.DeepHarmonyConfig, harmonize_baselines.PGANConfig]

@pytest.mark.parametrize("kind", CONFIGS, ids=lambda k: k.__name__)
def test_a_config_carries_its_recipe(kind):
    paper, tiny = kind.preset("paper"), kind.preset("tiny")
    assert paper.recipe != tiny.recipe and replace(paper).recipe == paper.recipe
    assert Recipe(**json.loads(json.dumps(asdict(paper)))["recipe"]) == paper.recipe


def test_a_config_trains_as_its_name_does(tmp_path, monkeypatch):
    slices, used = (torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)), {}
    small = replace(fgsb.FGSBConfig.preset("paper"), net=replace(fgsb.FGSBConfig.preset("tiny").net, channels=8), discriminator=fgsb.FGSBConfig.preset("tiny").discriminator)
    monkeypatch.setitem(fgsb.FGSB_PRESETS, "paper", small)
    for name, preset in dict(word="paper", config=small).items():
        fgsb.train_fgsb(tmp_path / name, slices, slices, preset, steps=1, device="cpu", progress=False)
        used[name] = load_tensors(tmp_path / name / "checkpoint.safetensors")[1]["config"]
    assert used["word"] == used["config"] and used["word"]["batch_size"] == 1 and used["word"]["decay"] == "linear" and used["word"]["ema"] == 0
