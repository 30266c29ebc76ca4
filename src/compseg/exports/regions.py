"""Regions of a mask as polygons along the edges of its pixels, found a strip of rows at a time.

Memory holds one strip, and of the whole mask no more than its outlines: the runs of marked pixels in each row, and the
corners of the outlines. No library that is a dependency traces the edges of pixels exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compseg.exports.stored import Strip
from compseg.samples import Mask

Ints = NDArray[np.int64]


class Region(NamedTuple):
    """Marked pixels that hang together by their edges.

    Attributes:
        rings: Corners `(n, 2)` of the outline, x and y in pixels from the image's upper left corner, then those of each
            hole. None crosses or touches itself, and the last corner is the first. The outline runs counterclockwise
            where x is to the right and y upwards, as GeoJSON has it, and holes clockwise.
        pixels: How many there are: the area of the polygon.
        activation: Their mean, in [0, 1].
        spread: The mean of how far their activations differ; None where that is not known.
    """

    rings: list[Ints]
    pixels: int
    activation: float
    spread: float | None


class _Runs(NamedTuple):
    """Marked pixels of a row that lie side by side: row, first column, column after the last, sums `(n, 1 or 2)`."""

    row: Ints
    start: Ints
    stop: Ints
    total: NDArray[np.float64]


class _Corners(NamedTuple):
    """Corners of outlines: place; which way their edges lead; and whether the pixel to the lower right is marked.

    Where two marked pixels touch at their corners alone there are two, one of each pixel.
    """

    y: Ints
    x: Ints
    right: Mask  # else left
    down: Mask  # else up
    inside: Mask


def regions_of(strips: Iterable[Strip], width: int) -> Iterator[Region]:
    """The regions of a mask from top to bottom.

    Args:
        strips: Each `(h, width)`, from top to bottom.
        width: Of the image.
    """
    runs, corners = _scan(strips, width)
    if not len(runs.row):
        return
    label = _labels(runs, width)
    pixels, *totals = (np.bincount(label, weights) for weights in (runs.stop - runs.start, *runs.total.T))
    rings = list(_rings(corners, width))
    first = np.array([ring[0] for ring in rings])
    owner = label[_runs_at(corners, first, runs, width)]
    # Outlines before holes: an outline has the region to the lower right of its first corner.
    order = np.lexsort((~corners.inside[first], owner))
    ends = np.searchsorted(owner[order], np.arange(len(pixels)), side="right")
    for number, of_region in enumerate(np.split(order, ends[:-1])):
        places = [np.append(rings[i], rings[i][0]) for i in of_region]
        corner_lists = [np.stack([corners.x[place], corners.y[place]], axis=1) for place in places]
        activation, *spread = (float(total[number] / pixels[number]) for total in totals)
        yield Region(corner_lists, int(pixels[number]), activation, spread[0] if spread else None)


def _scan(strips: Iterable[Strip], width: int) -> tuple[_Runs, _Corners]:
    runs, corners, row = [], [], 0
    above = np.zeros((1, width + 2), bool)
    for strip in strips:
        # A column without marks at either end, so that what lies at the rim has edges as well.
        padded = np.pad(strip.mask, ((0, 0), (1, 1)))
        corners.append(_corners(np.concatenate([above, padded]), row))
        runs.append(_runs(padded, strip, row))
        above, row = padded[-1:], row + len(padded)
    corners.append(_corners(np.concatenate([above, np.zeros_like(above)]), row))
    return (
        _Runs(*map(np.concatenate, zip(*runs, strict=True))),
        _joined(corners),
    )


def _runs(padded: Mask, strip: Strip, first_row: int) -> _Runs:
    change = np.diff(padded.view(np.int8), axis=1)
    (row, start), (_, stop) = np.nonzero(change == 1), np.nonzero(change == -1)
    totals = []
    for values in (strip.activation, strip.spread):
        if values is not None:
            summed = np.pad(np.cumsum(np.where(strip.mask, values, 0), axis=1, dtype=np.float64), ((0, 0), (1, 0)))
            totals.append(summed[row, stop] - summed[row, start])
    return _Runs(row + first_row, start, stop, np.stack(totals, axis=1))


def _corners(padded: Mask, first_row: int) -> _Corners:
    upper_left, upper_right, lower_left, lower_right = (
        padded[rows, columns] for rows in (slice(-1), slice(1, None)) for columns in (slice(-1), slice(1, None))
    )
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    crossed = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    y, x = np.nonzero(odd | crossed)
    twice = crossed[y, x]
    right, down = (upper_right != lower_right)[y, x], (lower_left != lower_right)[y, x]
    # Of two corners in one place the first is that of the upper pixel.
    right[twice], down[twice] = upper_right[y, x][twice], False
    first = _Corners(y + first_row, x, right, down, lower_right[y, x])
    second = _Corners(*(values[twice] for values in first))
    second = second._replace(right=~second.right, down=~second.down)
    return _joined([first, second])


def _joined(parts: Sequence[_Corners]) -> _Corners:
    return _Corners(*map(np.concatenate, zip(*parts, strict=True)))


def _labels(runs: _Runs, width: int) -> Ints:
    """The region of each run: two of neighbouring rows that share a column are of one."""
    key, end = runs.row * (width + 1) + runs.start, runs.row * (width + 1) + runs.stop
    first, last = np.searchsorted(end, key - width - 1, side="right"), np.searchsorted(key, end - width - 1)
    shared = last - first
    below = np.repeat(np.arange(len(key)), shared)
    above = np.arange(shared.sum()) + np.repeat(first - np.cumsum(shared) + shared, shared)
    _, label = connected_components(coo_array((np.ones(len(below), bool), (below, above)), shape=2 * key.shape))
    return np.asarray(label, np.int64)


def _rings(corners: _Corners, width: int) -> Iterator[Ints]:
    """The corners of each ring in order, from the uppermost, of these the leftmost."""
    place = (corners.y * (width + 1) + corners.x).tolist()
    along_row = _partners(np.lexsort((corners.right, corners.x, corners.y)))
    along_column = _partners(np.lexsort((corners.down, corners.y, corners.x)))
    inside, seen = corners.inside.tolist(), bytearray(len(place))
    for first in range(len(place)):
        ring, corner = [], first
        while not seen[corner]:
            after = along_row[corner]
            seen[corner] = seen[after] = 1
            ring += [corner, after]
            corner = along_column[after]
        for part in _parted(ring, place) if ring else ():
            top = min(range(len(part)), key=lambda i: place[part[i]])
            part = part[top:] + part[:top]
            # The ring goes to the right first where it is the outline of a region, down where it is that of a hole.
            if (place[part[1]] - place[part[0]] <= width) != inside[part[0]]:
                part[1:] = part[:0:-1]
            yield np.array(part)


def _partners(order: Ints) -> list[int]:
    """The other end of each corner's edge: in the order along a line, edges follow one another."""
    partners = np.empty_like(order)
    partners[order[::2]], partners[order[1::2]] = order[1::2], order[::2]
    found: list[int] = partners.tolist()
    return found


def _parted(ring: Sequence[int], place: Sequence[int]) -> Iterator[list[int]]:
    """A ring that meets itself at corners, as rings that do not."""
    path: list[int] = []
    at: dict[int, int] = {}  # where in the path a place is
    for corner in ring:
        if (before := at.get(place[corner])) is None:
            at[place[corner]] = len(path)
            path.append(corner)
            continue
        yield path[before:]
        for left in path[before + 1 :]:
            del at[place[left]]
        del path[before + 1 :]
    yield path


def _runs_at(corners: _Corners, corner: Ints, runs: _Runs, width: int) -> Ints:
    """The run of the marked pixel at the right of a ring's first corner: below it, or above where there is a hole."""
    row = corners.y[corner] - ~corners.inside[corner]
    key = row * (width + 1) + corners.x[corner]
    return np.searchsorted(runs.row * (width + 1) + runs.start, key, side="right") - 1
