from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from compseg.errors import CompsegError
from compseg.models import UNet
from compseg.models.blocks import Conv


def conv(inputs: int, outputs: int, side: int = 3) -> int:
    """Parameters of a convolution with bias."""
    return inputs * outputs * side**2 + outputs


@pytest.mark.parametrize(("channels", "maps", "total"), [(1, 1, 31_030_593), (3, 2, 31_031_810), (450, 1, 31_289_217)])
def test_has_the_parameters_of_the_papers_unet(channels: int, maps: int, total: int):
    down = (
        *(conv(channels, 64), conv(64, 64)),
        *(conv(64, 128), conv(128, 128)),
        *(conv(128, 256), conv(256, 256)),
        *(conv(256, 512), conv(512, 512)),
        *(conv(512, 1024), conv(1024, 1024)),
    )
    up = (
        *(conv(1024, 512, 2), conv(1024, 512), conv(512, 512)),
        *(conv(512, 256, 2), conv(512, 256), conv(256, 256)),
        *(conv(256, 128, 2), conv(256, 128), conv(128, 128)),
        *(conv(128, 64, 2), conv(128, 64), conv(64, 64)),
    )
    by_hand = sum(down) + sum(up) + conv(64, maps, 1)
    assert by_hand == total
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(channels, maps).parameters()) == total


@torch.no_grad()
def test_computes_what_the_paper_draws():
    """One halving, written out with functions."""
    net = UNet(3, 2, width=4, depth=1).eval()
    nn.init.normal_(net.output.weight)
    weights = net.state_dict()

    def softplus_conv(x: Tensor, name: str) -> Tensor:
        kernel, bias = weights[f"{name}.0.weight"], weights[f"{name}.0.bias"]
        return (functional.conv2d(x, kernel, bias, padding=1).exp() + 1).log()

    x = torch.randn(2, 3, 10, 12)
    top = softplus_conv(softplus_conv(x, "encoder.0.0"), "encoder.0.1")
    bottom = softplus_conv(softplus_conv(functional.max_pool2d(top, 2), "encoder.1.0"), "encoder.1.1")
    up = functional.conv_transpose2d(bottom, weights["up.0.weight"], weights["up.0.bias"], stride=2)
    joined = softplus_conv(softplus_conv(torch.cat([top, up], 1), "decoder.0.0"), "decoder.0.1")
    expected = functional.conv2d(joined, weights["output.weight"], weights["output.bias"])
    torch.testing.assert_close(net(x), expected)


def test_the_papers_defaults():
    with torch.device("meta"):
        net = UNet(450)
    kinds = {type(module) for module in net.modules() if not list(module.children())}
    assert kinds == {Conv, nn.Conv2d, nn.Softplus, nn.MaxPool2d, nn.ConvTranspose2d, nn.Identity}
    assert len(net.encoder) == 5


@torch.no_grad()
def test_bilinear_upsampling_interpolates():
    net = UNet(1, width=2, depth=1, upsampling="bilinear")
    x = torch.randn(1, 4, 3, 3)
    expected = functional.interpolate(net.up[0][0](x), scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(net.up[0](x), expected)
    assert net(torch.randn(1, 1, 9, 11)).shape == (1, 1, 9, 11)


@pytest.mark.parametrize(("argument", "value"), [("depth", 0), ("upsampling", "nearest")])
def test_a_bad_argument_is_named(argument: str, value: object):
    with pytest.raises(CompsegError, match=f"^{argument}: expected .* got {value!r}$"):
        UNet(3, **{argument: value})


@cache
def lively(depth: int, upsampling: str) -> UNet:
    """One whose logits differ from pixel to pixel."""
    torch.manual_seed(0)
    net = UNet(2, 3, width=2, depth=depth, upsampling=upsampling, norm="batch").double()
    nn.init.normal_(net.output.weight)
    return net.eval()


@st.composite
def parts(draw: st.DrawFn, size: int) -> slice:
    start = draw(st.integers(0, size - 1))
    return slice(start, draw(st.integers(start + 1, size)))


@given(
    st.data(), st.integers(1, 3), st.sampled_from(["transposed", "bilinear"]), st.integers(1, 75), st.integers(1, 75)
)
@torch.no_grad()
def test_the_map_of_a_part_is_that_part_of_the_map(data, depth, upsampling, height, width):
    core = data.draw(parts(height)), data.draw(parts(width))
    net = lively(depth, upsampling)
    x = torch.randn(1, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = net(x)
    assert height * width < 100 or whole.std() > 1e-2
    torch.testing.assert_close(net.forward_window(x, core), whole[..., *core], atol=1e-12, rtol=0)


def test_the_map_of_a_part_costs_less():
    """The paper's network, in a tile of a large image: a third of what it computes is of margins that nobody sees."""
    with torch.device("meta"):
        net, x = UNet(450), torch.empty(1, 450, 576, 576)
    net.eval()
    counted = []
    for core in (slice(0, 576), slice(112, 464)):
        with FlopCounterMode(display=False) as counter:
            assert net.forward_window(x, (core, core)).shape[2] == core.stop - core.start
        counted.append(counter.get_total_flops())
    assert counted[1] < 0.75 * counted[0]
