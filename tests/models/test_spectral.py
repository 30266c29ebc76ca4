"""The networks that start from the spectrum; the stem's components against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from compseg.errors import CompsegError
from compseg.models import SpectralSpatial, SpectralStem, UNet


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


def samples(channels=7, rank=7, count=4, size=12):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(rank, channels)) * np.linspace(3, 0.1, rank)[:, None]
    for _ in range(count):
        image = torch.from_numpy((rng.normal(size=(size * size, rank)) @ mixing + 5).T.reshape(channels, size, size))
        tissue = torch.from_numpy(rng.random((1, size, size)) > 0.3)
        yield torch.where(tissue, image.float(), 99.0), tissue, 0


def spectra(**options):
    return torch.cat([image[:, tissue[0]].T for image, tissue, _ in samples(**options)]).double().numpy()


def test_starts_at_the_principal_components_at_unit_variance():
    stem = SpectralStem(7, nn.Identity(), components=3)
    stem.fit(samples(), 4)
    pca = PCA(3, whiten=True, svd_solver="full").fit(spectra())
    image, tissue, _ = next(iter(samples()))
    found = stem(image[None])[0][:, tissue[0]].T.detach().numpy()
    expected = pca.transform(image[:, tissue[0]].T.numpy())
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=5e-3)
    assert stem.share == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-6)
    assert f"3 components, {stem.share:.1%}" in str(stem)


def test_signs_do_not_depend_on_the_machine():
    stem = SpectralStem(7, nn.Identity(), components=3)
    stem.fit(samples(), 4)
    weights = stem.stem.weight[:, :, 0, 0]
    assert (weights.gather(1, weights.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize(("channels", "rank"), [(3, 3), (7, 2)])
def test_more_components_than_the_spectra_have(channels, rank):
    stem = SpectralStem(channels, nn.Identity(), components=5)
    drawn = stem.stem.weight.detach().clone()
    stem.fit(samples(channels, rank), 4)
    assert not torch.equal(stem.stem.weight[: min(rank, 5)], drawn[: min(rank, 5)])
    assert torch.equal(stem.stem.weight[rank:], drawn[rank:])
    assert stem.share == pytest.approx(1)
    assert stem.stem.weight.isfinite().all()


def test_sees_as_far_as_its_network():
    assert SpectralStem(7, UNet(3, width=2, depth=1), components=3).layers == UNet(3, width=2, depth=1).layers
    assert SpectralStem(7, nn.Identity()).layers is None
