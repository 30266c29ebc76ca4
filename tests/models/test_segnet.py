from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from compseg.models import SegNet

VGG16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]


def test_encoder_is_vgg16_and_decoder_its_mirror():
    with torch.device("meta"):
        net = SegNet(3, 1)
    widths = [m.out_channels for m in net.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert widths == VGG16
    decoder = [m for units in reversed(net.decoder) for m in units.modules() if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in [*decoder, net.output]] == VGG16[::-1]
    assert [m.out_channels for m in [*decoder, net.output]] == [*VGG16[-2::-1], 1]


def test_parameter_count():
    with torch.device("meta"):
        net = SegNet(3, 1)
    encoder_weights = 9 * sum(a * b for a, b in zip([3, *VGG16[:-1]], VGG16, strict=True))
    decoder_weights = 9 * sum(a * b for a, b in zip(VGG16[::-1], [*VGG16[-2::-1], 1], strict=True))
    norms = 2 * (sum(VGG16) + sum(VGG16[:-1]))  # scale and shift, not after the output
    assert encoder_weights == 14_710_464  # what VGG-16 has without biases
    assert encoder_weights + decoder_weights + norms + 1 == 29_435_649
    assert sum(p.numel() for p in net.parameters()) == 29_435_649


@torch.no_grad()
def test_unpooling_puts_each_maximum_where_it_was():
    net = SegNet(3, width=2).eval()
    seen: dict[str, torch.Tensor] = {}
    net.encoder[0].register_forward_hook(lambda _module, _inputs, output: seen.update(encoded=output))
    net.decoder[0].register_forward_hook(lambda _module, inputs, _output: seen.update(unpooled=inputs[0]))
    net.decoder[1].register_forward_hook(lambda _module, _inputs, output: seen.update(coarse=output))
    net(torch.randn(1, 3, 64, 64))
    is_maximum = seen["encoded"] == functional.interpolate(functional.max_pool2d(seen["encoded"], 2), scale_factor=2)
    assert not seen["unpooled"][~is_maximum].any()
    assert torch.equal(functional.avg_pool2d(seen["unpooled"], 2) * 4, seen["coarse"])
