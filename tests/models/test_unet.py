from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compseg.errors import CompsegError
from compseg.models import UNet


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
    assert kinds == {nn.Conv2d, nn.Softplus, nn.MaxPool2d, nn.ConvTranspose2d, nn.Identity}
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
