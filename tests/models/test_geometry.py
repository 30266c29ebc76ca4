"""Padding and cropping for any image size, and the stated receptive fields found again by changing single columns."""

from __future__ import annotations

import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compseg.models import MeanOfOutputs, Padded, SegNet, SpectralSpatial, UNet, pad_to_multiple
from compseg.models.geometry import crop_to

SIZES = st.integers(1, 80)


@given(height=SIZES, width=SIZES, multiple=st.sampled_from([1, 2, 8, 16, 32]))
def test_padding_is_the_least_that_fits_and_is_taken_back(height: int, width: int, multiple: int):
    x = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    padded = pad_to_multiple(x, multiple)
    for before, after in zip(x.shape[2:], padded.shape[2:], strict=True):
        assert after % multiple == 0
        assert after >= 2 * multiple
        assert after == 2 * multiple or after - before < multiple
    assert torch.equal(crop_to(padded, height, width), x)


def test_padding_repeats_the_last_row_and_column():
    x = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    row_1, row_2 = [1.0, 2.0, 3.0, 3.0], [4.0, 5.0, 6.0, 6.0]
    assert pad_to_multiple(x, 2).tolist() == [[[row_1, row_2, row_2, row_2]]]


def test_a_size_that_fits_is_not_copied():
    x = torch.randn(1, 2, 32, 48)
    assert pad_to_multiple(x, 16) is x


def test_compiled_it_is_not_copied_either():
    """On a GPU the copy would lay channels apart, and every pass over the image would gather them again."""
    first = []

    def seen(graph, _):
        first.append(next(node.target for node in graph.graph.nodes if node.op == "call_function"))
        return graph

    torch.compile(UNet(3, width=4, depth=2), backend=seen, fullgraph=True)(torch.rand(1, 3, 16, 16))
    assert first == [torch.conv2d]


class Halving(nn.Module):
    """Fails where a side is odd, and gives what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 2 == x.shape[-2] % 2 == 0
        return x


def test_padded_takes_every_size():
    x = torch.randn(2, 1, 7, 9)
    assert torch.equal(Padded(Halving(), multiple=2)(x), x)


def test_mean_of_outputs():
    class Two(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x, 3 * x]

    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(MeanOfOutputs(Two())(x), 2 * x)


@torch.no_grad()
def test_a_tile_on_the_pooling_grid_gives_what_the_whole_image_gives():
    net = UNet(2, width=4, depth=2).eval()
    margin = net.receptive_field  # further in than this, no edge is seen
    image = torch.randn(1, 2, 133, 131)
    whole, tile = net(image), net(image[..., 8:, 12:])
    inside = slice(margin, 133 - 12 - margin)
    torch.testing.assert_close(tile[..., inside, inside], whole[..., 8:, 12:][..., inside, inside])


@pytest.mark.parametrize("network", [UNet, SegNet, SpectralSpatial])
@torch.no_grad()
def test_one_exported_graph_serves_every_size(network: type[nn.Module]):
    net = network(3, width=4).eval()
    free = torch.export.Dim.AUTO
    exported = torch.export.export(net, (torch.randn(2, 3, 37, 53),), dynamic_shapes=({0: free, 2: free, 3: free},))
    for shape in [(3, 3, 64, 96), (1, 3, 9, 70)]:
        x = torch.randn(shape)
        torch.testing.assert_close(exported.module()(x), net(x))


def truncating(numerator: int, denominator: int) -> int:
    """Division of integers as ONNX defines it: towards zero."""
    return int(numerator / denominator)


def test_padding_survives_onnx():
    """One exported graph with the integer division of ONNX gives, for every size, what torch gives."""

    class Pad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pad_to_multiple(x, 16)

    free = torch.export.Dim.AUTO
    graph = torch.export.export(Pad(), (torch.zeros(1, 1, 37, 53),), dynamic_shapes=({2: free, 3: free},)).module()
    divisions = [node for node in graph.graph.nodes if node.target is operator.floordiv]
    assert divisions
    for node in divisions:
        node.target = truncating
    graph.recompile()
    for height in range(2, 120, 7):
        for width in (2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 111):
            x = torch.rand(1, 1, height, width)
            torch.testing.assert_close(graph(x), pad_to_multiple(x, 16), rtol=0, atol=0)


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
