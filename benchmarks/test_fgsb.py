"""FGSB against its floor, the generator calls alone, and a training step beside pix2pix with the same generator.

    python -m pytest benchmarks/test_fgsb.py -q        writes benchmarks/results/fgsb.json
"""
import torch


def test_overhead_over_the_generator(note, in_turns):
    "A volume of 60 slices through the walk over the same five calls of the generator."
    from mrbook.methods.fgsb.fgsb import FGSB
    from mrbook.learn.weights import load
    method = FGSB(load("fgsb/phantom-t2w")); refiner = method.refiner
    x = torch.rand(60, 1, 112, 96, generator=torch.Generator().manual_seed(0))
    def floor():
        with torch.no_grad():
            for part in x.split(16):
                for k in range(refiner.config.nfe): refiner.call(part, k, refiner.latent.expand(len(part), -1), part)
    ratio, all, seconds = in_turns(floor, lambda: method.translate(x))
    note(overhead=dict(ratio_to_five_calls_per_slice=round(ratio, 3), all=all, seconds=round(seconds, 2), slices=60, size=[112, 96], precision=refiner.precision, threads=torch.get_num_threads()))
    assert ratio <= 1.3 and seconds <= 60, all


def test_training_step_beside_pix2pix(note, in_turns, tmp_path):
    "Twelve steps of FGSB, three of them with the identity loss, over twelve of pix2pix, preset small, batch 4."
    from dataclasses import replace
    from mrbook.generative.diffusion import fast_precision
    from mrbook.methods.fgsb.fgsb import FGSBConfig, FGSBGame, fgsb_batches
    from mrbook.methods.fgsb.baselines import Pix2pixConfig, Pix2pixGame
    from mrbook.learn.loop import PLAY, Loop, start_game, step_once
    g = torch.Generator().manual_seed(0); data = tuple(torch.rand(8, 1, 112, 96, generator=g) for _ in range(2))
    config = replace(PLAY, steps=1000, device="cpu", precision=fast_precision("cpu"))
    loops = {name: Loop(start_game(build, 0), fgsb_batches(data, 4, 4), tmp_path/name, config) for name, build in dict(fgsb=lambda: FGSBGame(FGSBConfig.preset("small", walk_from=0)), pix2pix=lambda: Pix2pixGame(Pix2pixConfig.preset("small"))).items()}
    def run(name):
        for _ in range(12): step_once(loops[name])
    ratio, all, seconds = in_turns(lambda: run("pix2pix"), lambda: run("fgsb"), rounds=3)
    note(training=dict(ratio_to_pix2pix=round(ratio, 3), all=all, seconds_per_step=round(seconds / 12, 3), batch=4, size=[112, 96], precision=config.precision, threads=torch.get_num_threads()))
    assert ratio <= 5, all
