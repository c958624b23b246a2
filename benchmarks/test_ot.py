"""Our VarNet's training step beside fastMRI's of the same size, and OT reconstruction over its network calls alone.

    python -m pytest benchmarks/test_ot.py -q        writes benchmarks/results/ot.json

fastMRI asks for torchvision and Lightning, its VarNet needs neither: unpack its wheel (`pip download --no-deps fastmri`, `unzip`) and put that folder on PYTHONPATH; without it the first test is skipped.
"""
import pytest, torch


def scan(coils, size, n=1):
    from mrbook.methods.ot.ot import ScanConfig, acquire
    from mrbook.mri.sampling import sampling_mask
    x = torch.rand(n, 1, *size, generator=torch.Generator().manual_seed(0)); a = acquire(x, x, ScanConfig(coils=coils), 0)
    return a, sampling_mask("random", size, .25, 0)


def test_training_step_beside_fastmri(note, in_turns):
    "Forward, mean absolute error, backward, Adam: four cascades of 18 channels, sensitivities of 8, four coils."
    peer = pytest.importorskip("fastmri.models", reason="fastMRI is not on the path")
    from mrbook.nets.varnet import VarNet, VarNetConfig
    torch.manual_seed(0)
    ours, theirs, size = VarNet(VarNetConfig.preset("paper")), peer.VarNet(num_cascades=4, sens_chans=8, sens_pools=4, chans=18, pools=4), (160, 160)
    count = lambda net: sum(p.numel() for p in net.parameters()); a, m = scan(4, size); k = torch.where(m, a.kspace, 0); truth = a.aux
    step = lambda net, call, adam: (adam.zero_grad(), (call() - truth).abs().mean().backward(), adam.step())
    call_ours, call_theirs = lambda: ours(k, m).magnitude, lambda: theirs(torch.view_as_real(k), m[..., None], 12)[:, None]
    adams = [torch.optim.Adam(n.parameters(), 1e-4) for n in (ours, theirs)]
    ratio, all, seconds = in_turns(lambda: step(theirs, call_theirs, adams[1]), lambda: step(ours, call_ours, adams[0]))
    note(training=dict(ratio_to_fastmri_varnet=round(ratio, 3), all=all, seconds=round(seconds, 2), parameters=[count(ours), count(theirs)], coils=4, size=list(size), threads=torch.get_num_threads()))
    assert abs(count(ours) / count(theirs) - 1) < .01 and ratio <= 1.1, all


def test_slice_within_three_seconds(note, in_turns):
    "A slice of 320 x 320 at preset small, with refinement, over the same without."
    from dataclasses import replace
    from mrbook.methods.ot.ot import OTNet, OTReconConfig, reconstruct_slices
    torch.manual_seed(0); a, m = scan(1, (320, 320)); nets = [OTNet(replace(OTReconConfig.preset("small"), refine=r)) for r in (0, 5)]
    ratio, all, seconds = in_turns(*[lambda net=net: reconstruct_slices(net, a.kspace, m, a.aux) for net in nets], rounds=3)
    note(slice=dict(seconds=round(seconds, 2), ratio_of_refinement=round(ratio, 3), all=all, size=[320, 320], threads=torch.get_num_threads()))
    assert seconds <= 3, all
