"""How much of each sample lies above each level of activation: what thresholds, Dice and intervals are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Mask, SampleInfo

GRID = 1024


class LabelledMap(Protocol):
    """An activation map together with what is known of its sample."""

    @property
    def info(self) -> SampleInfo:
        """Name, label, group and patient."""
        ...

    @property
    def activation(self) -> NDArray[np.float32]:
        """`(H, W)` in [0, 1]."""
        ...

    @property
    def tissue(self) -> Mask:
        """`(H, W)` bool, pixels that count."""
        ...

    @property
    def truth(self) -> Mask | None:
        """`(H, W)` bool, or None where no expert has drawn one."""
        ...


@dataclass(frozen=True)
class Curves:
    """Pixel counts of N samples at L levels; a pixel lies above a level if its activation is strictly greater.

    Attributes:
        levels: `(L,)` float64, rising, from 0 to 1.
        above: `(N, L)` tissue pixels above each level.
        mass: `(N, L)` sum of their activations.
        hits: `(N, L)` those of them that are disease by the truth; 0 for samples without truth.
        tissue: `(N,)` tissue pixels.
        disease: `(N,)` tissue pixels that are disease by the truth; 0 for samples without truth.
    """

    levels: NDArray[np.float64]
    above: NDArray[np.int64]
    mass: NDArray[np.float64]
    hits: NDArray[np.int64]
    tissue: NDArray[np.int64]
    disease: NDArray[np.int64]

    @property
    def fractions(self) -> NDArray[np.float64]:
        """`(N, L)` area fraction at each level, in [0, 1]; 0 for a sample without tissue."""
        return self.above / np.maximum(self.tissue, 1)[:, None]

    @property
    def dice(self) -> NDArray[np.float64]:
        """`(N, L)` Dice score `2 |A & B| / (|A| + |B|)` at each level, in [0, 1]; 0 where both are empty."""
        dice: NDArray[np.float64] = 2 * self.hits / np.maximum(self.above + self.disease[:, None], 1)
        return dice


def curves_of(maps: Sequence[LabelledMap]) -> Curves:
    """Count the pixels above each level, sample by sample.

    The levels are 1024 even steps from 0 to 1 together with 1024 quantiles of the activations: the steps resolve a
    map that uses the whole range, the quantiles one that is squeezed against either end, as maps of a saturating
    objective are. With no more than 1024 tissue pixels in all, every activation is a level and the counts lose
    nothing.
    """
    values = [item.activation[item.tissue] for item in maps]
    levels = _levels(np.concatenate(values)) if values else np.linspace(0, 1, GRID + 1)
    inside = [_truth_of(item)[item.tissue] for item in maps]
    shape = (len(maps), len(levels))
    return Curves(
        levels=levels,
        above=np.array([_above(v, levels) for v in values], dtype=np.int64).reshape(shape),
        mass=np.array([_above(v, levels, weights=v) for v in values], dtype=np.float64).reshape(shape),
        hits=np.array([_above(v[t], levels) for v, t in zip(values, inside, strict=True)], dtype=np.int64).reshape(
            shape
        ),
        tissue=np.array([v.size for v in values], dtype=np.int64),
        disease=np.array([t.sum() for t in inside], dtype=np.int64),
    )


def _truth_of(item: LabelledMap) -> Mask:
    return np.zeros_like(item.tissue) if item.truth is None else item.truth


def _levels(values: NDArray[np.float32]) -> NDArray[np.float64]:
    even = np.linspace(0, 1, GRID + 1)
    if not values.size:
        return even
    ranks = np.linspace(0, values.size - 1, min(GRID, values.size)).astype(np.int64)
    return np.union1d(even, np.sort(values)[ranks])


def _above(
    values: NDArray[np.float32], levels: NDArray[np.float64], weights: NDArray[Any] | None = None
) -> NDArray[Any]:
    # A value is above exactly those levels that come before its place in the rising list.
    place = np.searchsorted(levels, values, side="left")
    at_place = np.bincount(place, weights, minlength=len(levels) + 1)
    return at_place[::-1].cumsum()[::-1][1:]
