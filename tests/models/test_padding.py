from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compseg.models import MeanOfOutputs, Padded, SegNet, SpectralSpatial, UNet, pad_to_multiple
from compseg.models.padding import crop_to

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
