"""Harmonization against its floor, the network calls alone, and rigid registration against ANTs where it is installed.

    python -m pytest benchmarks/test_harmonize.py -q        writes benchmarks/results/harmonize.json
"""
import time

import numpy as np, pytest, torch

def test_overhead_over_the_network(note, in_turns):
    "25 DDIM steps with the scan's table over the same 25 calls of the U-Net and those of the draft, one for each way to fold, 16 sagittal slices of 112 x 112."
    from mrbook.methods.harmonize.ddpm import harmonize, load_harmonizer
    model = load_harmonizer(); x = 0.3 + 0.5 * torch.rand(16, 1, 112, 112, generator=torch.Generator().manual_seed(0))
    of = lambda net: x.repeat(1, net.config.in_channels, 1, 1)
    stack, given, y = of(model.net), of(model.draft), torch.ones(16, dtype=torch.long)
    def floor():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=model.precision == "bf16"):
            for _ in range(model.config.draft.patch**2 if model.config.foldings else 1): model.draft(given, torch.zeros(16), y)
            for t in range(25): model.net(stack, torch.full((16,), 40 * t), y)
    ratio, all, seconds = in_turns(floor, lambda: harmonize(model, x, 1, 25, temperature=0.))
    note(overhead=dict(ratio_to_25_network_calls=round(ratio, 3), all=all, seconds=round(seconds, 2), seconds_for_160_slices=round(10 * seconds, 1), slices=16, size=[112, 112], precision=model.precision, threads=torch.get_num_threads()))
    assert ratio <= 1.3, all


def test_rigid_registration_beside_ants(note):
    "Time and error of a known move, ours and ANTsPy's, on the same 2 mm brain."
    ants = pytest.importorskip("ants", reason="pip install antspyx to compare")
    from mrbook.mri.phantom import image, phantom
    from mrbook.mri.physics import Contrast
    from mrbook.scans.rigid import Rigid, apply_rigid, register_rigid
    from mrbook.scans.volume import Volume
    a = phantom(4104); fixed = Volume(image(a, Contrast("t1w", 1.5)), a.affine)
    move = Rigid((3, -2, 4), (4, -3, 2), (0, -16, 5))
    moving = apply_rigid(Volume(image(a, Contrast("t1w", 3.)), a.affine), move, fixed)
    to_ants = lambda v: ants.from_numpy(v.data, origin=list(v.affine[:3, 3]), spacing=[2., 2., 2.])
    inside = a.brain; truth = image(a, Contrast("t1w", 3.))
    error = lambda x: float(np.sqrt(np.square(x - truth)[inside].mean()))
    tick = time.perf_counter(); ours = apply_rigid(moving, register_rigid(moving, fixed), fixed).data; ours_s = time.perf_counter() - tick
    tick = time.perf_counter(); found = ants.registration(to_ants(fixed), to_ants(moving), "Rigid")["warpedmovout"].numpy(); ants_s = time.perf_counter() - tick
    note(rigid=dict(ours_seconds=round(ours_s, 2), ants_seconds=round(ants_s, 2), ours_rmse=round(error(ours), 4), ants_rmse=round(error(found), 4)))
    assert error(ours) <= 1.1 * error(found)
