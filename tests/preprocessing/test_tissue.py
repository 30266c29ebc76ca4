from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from compseg.errors import CompsegError
from compseg.preprocessing import resolve_rule, tissue_mask
from compseg.preprocessing.tissue import FRAGMENT, has_own_tissue, without_fragments
from compseg.samples import Channels, SampleArrays


def test_rules_on_a_tiny_image():
    image = np.zeros((2, 2, 3))
    image[0, 0, 2] = -1.0
    image[1, 1] = 5.0
    assert tissue_mask(image, "all").all()
    assert tissue_mask(image, "nonzero").tolist() == [[True, False], [False, True]]
    assert tissue_mask(image, "otsu").tolist() == [[False, False], [False, True]]


def test_auto_depends_on_the_axis():
    assert resolve_rule("auto", Channels(2, (1800.0, 948.0), "cm-1")) == "nonzero"
    assert resolve_rule("auto", Channels(3, names=("r", "g", "b"))) == "all"
    assert resolve_rule("otsu", Channels(1)) == "otsu"


def test_otsu_cuts_where_the_variance_within_the_two_classes_is_least():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0, 1, 3000), generator.normal(6, 1.5, 1000)]).astype(np.float32)
    cuts = np.linspace(values.min(), values.max(), 257)[1:-1]
    within = [
        (values <= cut).sum() * values[values <= cut].var() + (values > cut).sum() * values[values > cut].var()
        for cut in cuts
    ]
    reference = values > cuts[np.argmin(within)]
    mask = tissue_mask(values.reshape(50, 80, 1), "otsu")
    assert np.mean(mask.ravel() != reference) < 0.002  # they may differ by one bin of the histogram


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_otsu_needs_finite_values(value):
    with pytest.raises(CompsegError, match="NaN or infinite values have no level"):
        tissue_mask(np.full((2, 2, 1), value), "otsu")


def test_unknown_rule_names_the_choices():
    with pytest.raises(CompsegError, match="auto, all, nonzero, otsu, amide or stain"):
        tissue_mask(np.zeros((1, 1, 1)), "magic")


AXIS = tuple(np.linspace(1800, 950, 86))
CHANNELS = Channels(86, AXIS, "cm-1")


def section(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A spot `(40, 40, 86)` with two crumbs beside it and a bright flaw without bands, and where the spot is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :40]
    spot = (rows - 20) ** 2 + (columns - 18) ** 2 < 12**2
    amount = spot * rng.uniform(0.7, 1.0, spot.shape)
    amount[2, 2:4] = amount[37, 37] = 0.9
    bands = np.exp(-(((np.array(AXIS) - 1655) / 30) ** 2)) + 0.6 * np.exp(-(((np.array(AXIS) - 1545) / 30) ** 2))
    image = amount[..., None] * bands + rng.normal(0, 0.01, (40, 40, 86))
    image[5, 30:36] += 1.0  # dust: all wavenumbers alike
    return image.astype(np.float32), spot


def test_amide_finds_the_tissue_and_neither_dust_nor_crumbs():
    image, spot = section()
    assert np.array_equal(tissue_mask(image, "amide", CHANNELS), spot)
    assert not np.array_equal(tissue_mask(image, "otsu"), spot)


def test_amide_needs_the_band():
    with pytest.raises(CompsegError, match="no channels at 1600 to 1700"):
        tissue_mask(np.ones((2, 2, 3)), "amide", Channels(3, (1200.0, 1100.0, 1000.0), "cm-1"))
    with pytest.raises(CompsegError, match="no channels at 1600 to 1700"):
        tissue_mask(np.ones((2, 2, 3)), "amide", Channels(3, names=("red", "green", "blue")))


def test_stain_finds_colour_on_glass():
    rng = np.random.default_rng(0)
    picture = rng.integers(232, 240, (30, 30, 1)).repeat(3, axis=2).astype(np.uint8)
    picture[5:25, 8:22] = (150, 60, 140)
    picture[2:3, 2:3] = (150, 60, 140)  # a crumb
    expected = np.zeros((30, 30), bool)
    expected[5:25, 8:22] = True
    assert np.array_equal(tissue_mask(picture, "stain"), expected)
    with pytest.raises(CompsegError, match="expected red, green and blue"):
        tissue_mask(picture[..., :2], "stain")


@pytest.mark.parametrize("seed", range(4))
def test_fragments_are_scipys_small_labels(seed):
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 70)), 1.5) > 0.05
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum(mask, labels, range(1, count + 1))
    expected = np.isin(labels, 1 + np.flatnonzero(sizes >= FRAGMENT * sizes.max()))
    assert count > 5
    assert np.array_equal(without_fragments(mask), expected)
    assert not without_fragments(np.zeros((3, 4), bool)).any()


@pytest.mark.parametrize(("known", "expected"), [(None, True), (True, True), (False, False)])
def test_what_a_corrected_image_shows_does_not_count_where_the_raw_one_was_compared(known, expected):
    image = np.ones((3, 4, 2), np.float32)
    image[0] = 0  # spectra that could not be corrected
    arrays = SampleArrays(image, np.ones((3, 4), bool), own_tissue=known)
    assert has_own_tissue(arrays, "nonzero", Channels(2)) is expected
