"What the notebooks of discriminators and their losses do not say: files, mixed precision, second derivatives."
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mrbook.generative.adversarial import MineBound, discriminator_loss, generator_loss, r1_penalty
from mrbook.generative.contrastive import PatchNCE
from mrbook.nets.discriminators import DiscriminatorConfig, EnergyNet, NORMS, PatchDiscriminator, SelfSupervisedDiscriminator, self_supervised_loss

TINY = DiscriminatorConfig.preset("tiny")


def seeded(seed): return torch.Generator().manual_seed(seed)


def noise(n=2, c=1, h=40, w=36): return torch.randn(n, c, h, w, generator=seeded(0))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("cls", (PatchDiscriminator, SelfSupervisedDiscriminator, EnergyNet))
def test_networks_live_in_safetensors(tmp_path, cls, norm):
    config = replace(TINY, norm=norm, source_channels=int(cls is EnergyNet))
    net, fresh = cls(config).eval(), cls(config).eval()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "net.safetensors"))
    given = (noise(), -noise(), 3) if cls is EnergyNet else (noise(), 3)
    assert fresh(*given).equal(net(*given))


def test_heads_and_average_live_in_safetensors(tmp_path):
    nce, bound = PatchNCE((1, 4), width=8, patches=10), MineBound()
    bound(torch.zeros(2), torch.ones(2))
    for name, module in (("nce", nce), ("bound", bound)): save_file(module.state_dict(), tmp_path / name)
    other, again = PatchNCE((1, 4), width=8, patches=10), MineBound()
    other.load_state_dict(load_file(tmp_path / "nce")); again.load_state_dict(load_file(tmp_path / "bound"))
    maps = [noise(), noise(c=4)]
    assert other(maps, maps, seeded(1)).equal(nce(maps, maps, seeded(1))) and again.log_mean == bound.log_mean == 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("blur", (True, False))
def test_penalty_differentiates_twice(norm, blur):
    net = SelfSupervisedDiscriminator(replace(TINY, norm=norm, blur=blur))
    r1_penalty(lambda x: net(x, 1), noise()).backward()
    assert net.blocks[0].time.weight.grad.isfinite().all() and net.final.bias.grad is None


def test_mixed_precision():
    net, x = SelfSupervisedDiscriminator(TINY), noise()
    nce = PatchNCE((1,), width=8, patches=10)
    with torch.autocast("cpu", torch.bfloat16):
        logits, drawn = net(x, 0, decode=True, generator=seeded(0))
        contrast = nce([x], [x], seeded(0))
        loss = discriminator_loss(logits, net(-x, 0), "hinge") + self_supervised_loss(drawn, x) + generator_loss(logits) + contrast
    loss.backward()
    assert contrast.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters())
