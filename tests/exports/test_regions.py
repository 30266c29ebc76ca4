"""Polygons along the edges of pixels: they hold exactly the mask, and every ring is one that GeoJSON allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline
from scipy.ndimage import label

from compseg.exports.regions import regions_of
from compseg.exports.stored import Strip

MASKS = {
    "nothing": "...",
    "a pixel": "#",
    "all": "## ##",
    "two that touch at a corner": "#. .#",
    "the other diagonal": ".# #.",
    "a hole": "### #.# ###",
    "an island in a hole": "##### #...# #.#.# #...# #####",
    "a hole that touches the outline": "### #.# ##.",
    "two holes that touch": "#### #.## ##.# ####",
    "holes of a checkerboard": "##### #.#.# ##.## #.#.# #####",
    "a bay that is closed at a corner": ".##. #..# #..# .###",
    "a stair": "#... ##.. .##. ..##",
}


def mask_of(text):
    return np.array([[char == "#" for char in row] for row in text.split()])


def regions(mask, activation=None, rows=2):
    activation = np.ones(mask.shape, "f4") if activation is None else activation
    strips = [Strip(activation[i : i + rows], mask[i : i + rows]) for i in range(0, len(mask), rows)]
    return list(regions_of(strips, mask.shape[1]))


def signed_area(ring):
    (x, y), (x_after, y_after) = ring[:-1].T, ring[1:].T
    return (x * y_after - x_after * y).sum() / 2


def filled(rings, shape):
    """The pixels inside: their centres are within an odd number of rings."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    inside = [Outline(ring, closed=True).contains_points(centres) for ring in rings]
    return (np.sum(inside, axis=0) % 2 == 1).reshape(shape)


def check(mask, found):
    labels, count = label(mask)  # by edges, as regions are
    assert len(found) == count
    for number, region in enumerate(found, 1):
        outline, *holes = region.rings
        assert signed_area(outline) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
        assert sum(signed_area(ring) for ring in region.rings) == region.pixels == (labels == number).sum()
        for ring in region.rings:
            assert (ring[0] == ring[-1]).all()
            assert len({tuple(corner) for corner in ring[:-1].tolist()}) == len(ring) - 1 >= 4
            along = np.diff(ring, axis=0) != 0
            assert (along.sum(1) == 1).all(), "edges follow rows and columns"
            assert (along[:, 0] ^ np.roll(along[:, 0], 1)).all(), "each corner is one"
        assert (filled(region.rings, mask.shape) == (labels == number)).all()


@pytest.mark.parametrize("text", MASKS.values(), ids=MASKS)
def test_a_mask_by_hand(text):
    check(mask_of(text), regions(mask_of(text)))


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(1, 12))
def test_any_mask_in_any_strips(mask, rows):
    check(mask, regions(mask, rows=rows))


def test_the_mean_activation_is_that_of_the_region():
    activation = np.array([[0.5, 0.25, 0.9], [0, 0, 0.7]], "f4")
    found = regions(activation > 0.3, activation, rows=1)
    assert [region.activation for region in found] == pytest.approx([0.5, 0.8])


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_an_independent_library_finds_them_valid(mask):
    shapely = pytest.importorskip("shapely", reason="shapely is not installed; it is in compseg[dev]")
    boxes = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(mask)]
    polygons = [shapely.Polygon(region.rings[0], region.rings[1:]) for region in regions(mask)]
    assert all(polygon.is_valid for polygon in polygons)
    assert shapely.union_all(polygons).symmetric_difference(shapely.union_all(boxes)).area == 0
