"""The maps that are judged, and how much of each lies above each level of activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Mask, SampleInfo

LEVELS = 1024


@dataclass(frozen=True)
class SampleMap:
    """A sample's activation map with all that is needed to judge it.

    Attributes:
        info: Name, label, group and patient.
        activation: `(H, W)` float32 in [0, 1], 0 outside the tissue.
        tissue: `(H, W)` bool, pixels that count.
        truth: `(H, W)` bool, the expert's disease region; None where there is none. A healthy sample of a cohort with
            truth has an empty one.
        output: o, the head's output.
        pooled: x, what the pool made of the activation.
    """

    info: SampleInfo
    activation: NDArray[np.float32]
    tissue: Mask
    truth: Mask | None
    output: float
    pooled: float

    @property
    def region(self) -> Mask:
        """`(H, W)` bool: the truth on tissue; empty where there is no truth."""
        return np.zeros_like(self.tissue) if self.truth is None else self.truth & self.tissue


def labels_of(maps: Sequence[SampleMap]) -> NDArray[np.int64]:
    """`(N,)` sample labels, 1 = disease."""
    return np.array([item.info.label for item in maps], dtype=np.int64)


def with_truth(maps: Sequence[SampleMap]) -> list[SampleMap]:
    """The samples that an expert has looked at, healthy ones with their empty truth included."""
    return [item for item in maps if item.truth is not None]


def with_disease_truth(maps: Sequence[SampleMap]) -> list[SampleMap]:
    """Disease samples whose truth marks at least one tissue pixel: those for which a Dice score means something."""
    return [item for item in maps if item.info.label == 1 and item.region.any()]


@dataclass(frozen=True)
class Curves:
    """Pixel counts of N samples at L levels; a pixel is above a level if its activation is strictly greater.

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


def curves_of(maps: Sequence[SampleMap]) -> Curves:
    """Count the pixels above each level, sample by sample.

    The levels are 1024 even steps from 0 to 1 together with 1024 quantiles of the activations: the steps resolve a
    map that uses the whole range, the quantiles one that is squeezed against either end, as maps of a saturating
    objective are. With no more than 1024 tissue pixels in all, every activation is a level and the counts lose
    nothing.
    """
    values = [item.activation[item.tissue] for item in maps]
    regions = [item.region[item.tissue] for item in maps]
    # The empty array stands for no samples, which numpy does not concatenate.
    levels = _levels(np.concatenate([np.empty(0, np.float32), *values]))
    # Without samples the arrays below would lack their second axis.
    shape = (len(maps), len(levels))
    return Curves(
        levels=levels,
        above=np.array([_above(v, levels) for v in values], dtype=np.int64).reshape(shape),
        mass=np.array([_above(v, levels, weights=v) for v in values], dtype=np.float64).reshape(shape),
        hits=np.array([_above(v[r], levels) for v, r in zip(values, regions, strict=True)], dtype=np.int64).reshape(
            shape
        ),
        tissue=np.array([v.size for v in values], dtype=np.int64),
        disease=np.array([r.sum() for r in regions], dtype=np.int64),
    )


def _levels(values: NDArray[np.float32]) -> NDArray[np.float64]:
    even = np.linspace(0, 1, LEVELS + 1)
    if not values.size:
        return even
    ranks = np.linspace(0, values.size - 1, min(LEVELS, values.size)).astype(np.int64)
    return np.union1d(even, np.sort(values)[ranks])


def _above(
    values: NDArray[np.float32], levels: NDArray[np.float64], weights: NDArray[Any] | None = None
) -> NDArray[Any]:
    # Comparing every pixel with every level would need a table of both.
    # A value is above exactly those levels that come before its place in the rising list.
    place = np.searchsorted(levels, values, side="left")
    at_place = np.bincount(place, weights, minlength=len(levels) + 1)
    return at_place[::-1].cumsum()[::-1][1:]
