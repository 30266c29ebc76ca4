"""Tiles: they part the image, and give the map of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compseg.comparative import FisherPseudoLabels
from compseg.errors import CompsegError
from compseg.inference import Segmenter
from compseg.inference.network_input import backgrounds_of, network_input
from compseg.inference.segmenter import activation_of
from compseg.inference.tiling import cut, largest_side, receptive_field_of
from compseg.models import Padded, SegNet, SpectralSpatial, UNet
from compseg.preprocessing import Detrend, Preprocess, StandardNormalVariate
from compseg.samples import Channels

NETWORKS = {
    "unet": lambda: UNet(6, width=4, depth=2, activation="softplus"),
    "unet of one level, batch norm": lambda: UNet(6, width=4, depth=1, activation="relu", norm="batch"),
    "unet, bilinear, pixel norm": lambda: UNet(6, width=4, depth=2, norm="pixel", upsampling="bilinear"),
    "segnet": lambda: SegNet(6, width=2),
    "spectral-spatial": lambda: SpectralSpatial(6, width=4, norm="none"),
}


def segmenter_of(net: torch.nn.Module, channels: int = 6, dtype: str = "float32") -> Segmenter:
    preprocess = Preprocess(channels, [StandardNormalVariate()])
    return Segmenter(net, preprocess, {}, {}, Channels(channels), tissue_rule="nonzero", dtype=dtype)


def lively(net: torch.nn.Module) -> torch.nn.Module:
    """A network whose logits differ from pixel to pixel by about one, and whose batch norms have seen something."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    with torch.no_grad():
        net.train()(torch.randn(2, 6, 64, 64))
    return net.eval()


def cube(height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(0).random((height, width, 6)).astype("f4")
    image[: height // 5, : width // 4] = 0
    return image


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_the_whole_images_map(name):
    segmenter = segmenter_of(lively(NETWORKS[name]()))
    # SegNet sees 211 pixels far: tiles of a strip that is barely longer than that.
    height, width, side = (523, 41, 512) if name == "segnet" else (151, 133, 90)
    image = cube(height, width)
    tissue = segmenter.tissue(image)
    whole = segmenter.activation(image, tissue)
    tiles = segmenter.tiles(image.shape, side)
    assert len(tiles) > 1
    tiled = np.full(whole.shape, np.nan, np.float32)
    for tile in tiles:
        tiled[tile.core] = segmenter.activation(image[tile.seen], tissue[tile.seen], core=tile.inner)
    assert whole[tissue].std() > 1e-3
    assert np.abs(np.diff(whole, axis=0)).max() > 1e-2
    np.testing.assert_allclose(tiled, whole, atol=1e-5, rtol=0)


def trains_on_pseudo_labels(own: bool = True) -> FisherPseudoLabels:
    """A pseudo-labeller that marks about a tenth of a cube."""
    pseudo_labels = FisherPseudoLabels(6, neighbourhood=3)
    pseudo_labels.filter.copy_(torch.tensor([1.0, -1, 0.5, 0, 0, 0.2]))
    pseudo_labels.level.fill_(0.8)
    pseudo_labels.highest.fill_(0.5)
    pseudo_labels.own.fill_(own)
    return pseudo_labels


@pytest.mark.parametrize("own", [True, False])
def test_tiles_are_compared_with_the_whole_image(own):
    segmenter = segmenter_of(lively(NETWORKS["unet"]()))
    image = cube(151, 133)
    image[60:, 50:, 1] += 0.5  # a part that differs, so that a tile has another reference than the image
    tissue = segmenter.tissue(image)
    plain = segmenter.activation(image, tissue)
    segmenter = replace(segmenter, pseudo_labels=trains_on_pseudo_labels(own), pseudo_labels_node={})
    whole = segmenter.activation(image, tissue)
    assert (np.abs(whole - plain).max() > 0.05) == own
    tiles = segmenter.tiles(image.shape, 90)
    assert len(tiles) > 1
    reference = segmenter.background(tiles, lambda some: ((t, image[t.seen], tissue[t.seen]) for t in some))
    assert (reference is not None) == own
    tiled = np.zeros_like(whole)
    for tile in tiles:
        tiled[tile.core] = segmenter.activation(image[tile.seen], tissue[tile.seen], reference, tile.inner)
    np.testing.assert_allclose(tiled, whole, atol=1e-4)


def test_a_background_is_that_of_the_whole_image_from_one_reading():
    labeller, image = trains_on_pseudo_labels(), cube(300, 200)
    image[200:, :, 1] += 0.5
    segmenter = replace(segmenter_of(SpectralSpatial(6)), pseudo_labels=labeller, pseudo_labels_node={})
    tissue, read = segmenter.tissue(image), []

    def pieces(tiles):
        read.extend(tiles)
        return ((tile, image[tile.seen], tissue[tile.seen]) for tile in tiles)

    found = segmenter.background(segmenter.tiles(image.shape, 100), pieces)
    cube_, mask = segmenter._tensors(image, tissue)
    expected = backgrounds_of(segmenter.preprocess, labeller, cube_, mask)
    assert float((expected - segmenter.preprocess(cube_, mask)[..., mask[0, 0]].mean(-1)).abs().max()) > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    times = np.zeros(image.shape[:2], int)
    for tile in read:
        times[tile.core] += 1
        assert all(part.start % 64 == 0 for part in tile.core)
        assert all(
            seen.start == max(0, core.start - 1) and seen.stop == min(size, core.stop + 1)
            for seen, core, size in zip(tile.seen, tile.core, image.shape, strict=False)
        )
    assert (times == 1).all()


def test_whole_samples_are_contrasted_as_with_their_backgrounds_given():
    """Their spectra are corrected once and wait in the result; the other way corrects them twice."""
    torch.manual_seed(0)
    labeller, preprocess = trains_on_pseudo_labels(), Preprocess(6, [Detrend(6, 1), StandardNormalVariate()])
    preprocess.mean.normal_()
    preprocess.std.uniform_(0.5, 2)
    raw = np.stack([cube(20, 24), cube(20, 24)[::-1] + 0.1]).astype(np.float16)
    image, tissue = torch.from_numpy(raw).permute(0, 3, 1, 2), torch.rand(2, 1, 20, 24) < 0.7
    background = backgrounds_of(preprocess, labeller, image, tissue)
    assert background.abs().max() > 0.1
    found = network_input(preprocess, labeller, image, tissue)
    assert torch.equal(found, network_input(preprocess, labeller, image, tissue, background))
    expected = labeller.contrast(preprocess(image.contiguous(), tissue), tissue)  # no strips in this layout
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_less_overlap_than_the_network_sees_leaves_seams():
    """Or the test above would hold for any margin."""
    segmenter = segmenter_of(lively(NETWORKS["unet"]()))
    image = cube(90, 90)
    tissue = segmenter.tissue(image)
    whole, tiled = segmenter.activation(image, tissue), np.zeros((90, 90), np.float32)
    for tile in segmenter.tiles(image.shape, side=40, overlap=4):
        tiled[tile.core] = segmenter.activation(image[tile.seen], tissue[tile.seen], core=tile.inner)
    assert np.abs(tiled - whole).max() > 1e-3


@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    side=st.integers(1, 100),
    overlap=st.integers(0, 40),
    stride=st.sampled_from([1, 2, 16]),
)
def test_cores_part_the_image_and_tiles_begin_on_the_grid(height, width, side, overlap, stride):
    times = np.zeros((height, width), int)
    for tile in cut((height, width), side, overlap, stride):
        times[tile.core] += 1
        assert np.zeros((height, width))[tile.seen][tile.inner].shape == times[tile.core].shape
        for core, seen, size in zip(tile.core, tile.seen, (height, width), strict=True):
            assert seen.start % stride == 0
            assert core.start - seen.start >= min(overlap, core.start)
            assert seen.stop - core.stop >= min(overlap, size - core.stop)
            assert seen.stop - seen.start <= max(side, stride + 2 * (overlap + stride))
    assert (times == 1).all()


def test_a_large_image_in_memory_is_tiled_by_itself(monkeypatch):
    segmenter = segmenter_of(lively(NETWORKS["unet of one level, batch norm"]()))
    image = cube(90, 120)
    whole = segmenter(image)
    monkeypatch.setattr("compseg.inference.segmenter.TILE_MEMORY", 200_000)
    assert len(segmenter.tiles(image.shape)) > 4
    np.testing.assert_allclose(segmenter(image), whole, atol=1e-5, rtol=0)


def test_what_a_network_sees():
    net = UNet(3, width=2)
    assert (receptive_field_of(net).radius, receptive_field_of(net).stride, receptive_field_of(net).problem) == (
        107,
        16,
        "",
    )
    assert "GroupNorm averages" in receptive_field_of(UNet(3, width=2, norm="group")).problem
    assert "does not say how far" in receptive_field_of(Padded(torch.nn.Conv2d(3, 1, 3, padding=1), 8)).problem


def test_tiles_are_no_larger_than_is_fast_unless_a_cut_would_show():
    sides = {}
    for norm in ("none", "group"):
        tiles = segmenter_of(SpectralSpatial(6, width=8, norm=norm)).tiles((1200, 1200))
        sides[norm] = max(part.stop - part.start for tile in tiles for part in tile.seen)
    assert sides["none"] <= 512 + 4
    assert sides["group"] == 1200


def test_the_side_follows_memory():
    net = SpectralSpatial(450, width=16)
    assert largest_side(net, 450, 2, 4e9) == pytest.approx(2 * largest_side(net, 450, 2, 1e9), abs=2)
    assert largest_side(net, 450, 4, 1e9) < largest_side(net, 450, 2, 1e9)
    assert largest_side(net, 450, 2, 1.0) == 1


def test_tiles_may_be_larger_where_margins_are_not_mapped():
    with torch.device("meta"):
        net = UNet(32)
    assert largest_side(net, 32, 2, 1e9, margin=112) > 1.1 * largest_side(net, 32, 2, 1e9)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_norm_that_averages_is_given_all_that_the_tile_sees(norm):
    """Else maps would differ more at the seams than they have to."""
    net = lively(UNet(6, width=8, depth=1, norm=norm))
    segmenter, core = segmenter_of(net), (slice(20, 40), slice(25, 45))
    x = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        assert (float((net.forward_window(x, core) - net(x)[..., *core]).abs().max()) < 1e-4) == (norm == "none")
        torch.testing.assert_close(segmenter.logits_of(x, core), net(x)[..., *core], atol=1e-5, rtol=0)


def test_network_input_is_what_training_sees():
    """In channels_last memory, the numbers of the module, zero off tissue whatever lies there."""
    segmenter = segmenter_of(SpectralSpatial(6))
    segmenter.preprocess.mean.normal_()
    segmenter.preprocess.std.uniform_(0.5, 2)
    image = cube(37, 53)
    tissue = segmenter.tissue(image)
    image[0, 0] = np.nan
    given = segmenter.network_input(image, tissue)
    expected = segmenter.preprocess(
        torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(tissue)[None, None]
    )
    torch.testing.assert_close(given, expected, rtol=1e-6, atol=1e-6)
    assert given.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (np.inf, "float32"), (1e6, "float16")])
def test_what_is_not_finite_on_tissue_is_refused(value, dtype):
    segmenter = segmenter_of(SpectralSpatial(6), dtype=dtype)
    image = cube(20, 20)
    image[10, 10, 3] = value
    with (
        pytest.raises(CompsegError, match=f"NaN or infinite values, or some beyond {dtype}"),
        np.errstate(all="ignore"),
    ):
        segmenter(image)


def test_without_tissue_nothing_is_computed():
    class Refusing(torch.nn.Module):
        def forward(self, x):
            raise AssertionError

    segmenter = segmenter_of(Refusing())
    assert not segmenter(np.zeros((9, 9, 6), "f4")).any()


def test_activation_is_zero_off_tissue():
    tissue = np.array([[True, False]])
    np.testing.assert_allclose(activation_of(torch.zeros(1, 1, 1, 2), tissue), [[0.5, 0]])
