from __future__ import annotations

import pytest
import torch

from compseg.errors import CompsegError
from compseg.models import SpectralSpatial


def test_parameter_count():
    spectral = 450 * 64 + 64 * 64
    spatial = 2 * 9 * 64 * 64
    norms = 4 * 2 * 64
    assert spectral + spatial + norms + 64 + 1 == 107_201
    assert sum(p.numel() for p in SpectralSpatial(450).parameters()) == 107_201


@torch.no_grad()
def test_without_spatial_layers_each_pixel_is_read_alone():
    net = SpectralSpatial(5, width=8, spatial_depth=0, norm="pixel").eval()
    x, order = torch.randn(1, 5, 6, 7), torch.randperm(42)

    def shuffled(image: torch.Tensor) -> torch.Tensor:
        return image.flatten(2)[..., order].view_as(image)

    assert net.receptive_field == 1
    torch.testing.assert_close(net(shuffled(x)), shuffled(net(x)))


@pytest.mark.parametrize(("norm", "same"), [("none", True), ("batch", True), ("pixel", True), ("group", False)])
@torch.no_grad()
def test_which_norms_keep_a_map_independent_of_tiling(norm: str, same: bool):
    torch.manual_seed(0)
    net = SpectralSpatial(5, width=8, norm=norm).eval()
    x = torch.randn(1, 5, 20, 24)
    x[..., 12:] += 3
    edge = net.receptive_field // 2
    whole, tile = net(x)[..., : 12 - edge], net(x[..., :12])[..., : 12 - edge]
    assert torch.allclose(whole, tile, atol=1e-6) == same


@pytest.mark.parametrize(("argument", "value"), [("spectral_depth", 0), ("spatial_depth", -1)])
def test_a_bad_argument_is_named(argument: str, value: int):
    with pytest.raises(CompsegError, match=f"^{argument}: expected at least .; got {value}$"):
        SpectralSpatial(3, **{argument: value})
