"""The stated receptive fields, found again by touching single input columns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compseg.models import SegNet, SpectralSpatial, UNet


@torch.no_grad()
def widest(net: nn.Module, side: int) -> int:
    """The largest number of input columns (first to last) that one output column depends on.

    With positive weights a high column raises everything that can see it, through maxima too.
    """
    net = net.double().eval()
    for parameter in net.parameters():
        parameter.fill_(0.1 if parameter.ndim > 1 else 0.0)
    height = 2 ** getattr(net, "depth", 0) * 2
    base = torch.linspace(1, 2, side, dtype=torch.float64).expand(1, 1, height, side)
    touched = base + 50 * torch.eye(side, dtype=torch.float64)[:, None, None]
    changed: Tensor = (net(touched) != net(base)).any(dim=2)[:, 0]
    spans = [column.nonzero() for column in changed.T]
    return max(int(span.max() - span.min()) + 1 for span in spans)


@pytest.mark.parametrize(
    ("net", "side"),
    [
        (UNet(1, width=1, depth=1, activation="relu"), 48),
        (UNet(1, width=1, depth=2, activation="relu"), 96),
        (UNet(1, width=1, depth=2, activation="relu", upsampling="bilinear"), 96),
        (UNet(1, width=1, depth=3, activation="relu"), 224),
        (SpectralSpatial(1, width=1, norm="none"), 16),
        (SpectralSpatial(1, width=1, norm="none", spatial_depth=5), 32),
    ],
)
def test_receptive_field_is_exact(net: nn.Module, side: int):
    assert widest(net, side) == net.receptive_field


def test_receptive_fields_in_the_documentation():
    with torch.device("meta"):
        fields = [net.receptive_field for net in (UNet(1), SegNet(1), SpectralSpatial(1))]
    assert fields == [204, 404, 5]


@torch.no_grad()
def test_segnet_sees_no_further_than_it_says():
    net = SegNet(1, width=2, norm="none").double().eval()
    x = torch.randn(1, 1, 64, 512, dtype=torch.float64)
    radius = net.receptive_field
    changed = x.clone()
    changed[..., :8] += 100
    difference = (net(changed) - net(x)).abs().amax(dim=(0, 1, 2))
    assert difference[:8].any()
    assert not difference[8 + radius :].any()
