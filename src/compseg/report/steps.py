"""The steps of the page's threshold, and maps as one byte a pixel that loses nothing at any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compseg.evaluation.curves import SampleMap, labels_of
from compseg.evaluation.intervals import Floats
from compseg.evaluation.metrics import area_fractions
from compseg.inference.threshold import Threshold
from compseg.samples import Mask

MOST = 250  # steps, so that the number of those below an activation fits into a byte
OFF_TISSUE = 255
BY_RANK = 180  # of them are quantiles: they resolve maps that are squeezed against either end
AREA_CUT = 0.05  # where no validation samples tell a better one

Codes = NDArray[np.uint8]
Counts = NDArray[np.int64]


def steps_of(maps: Sequence[SampleMap], threshold: Threshold) -> Floats:
    """The thresholds `(K,)` that may be chosen, rising: the stored one, hundredths, and quantiles in three digits.

    Each is a number that can be given to `compseg.evaluate threshold=`, and marks other pixels than its neighbours.
    """
    values = np.sort(np.concatenate([np.empty(0, np.float32), *(item.activation[item.tissue] for item in maps)]))
    ranks = np.linspace(0, len(values) - 1, min(BY_RANK, len(values))).astype(np.int64)
    rounded = [float(f"{value:.3g}") for value in values[ranks].tolist()]
    steps = np.union1d(np.arange(100) / 100, np.clip(rounded, 0, 1))
    # Evenly, where quantiles and hundredths are too many.
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST - 1)).round().astype(int))]
    # Activations are float32, and compared as such: what rounds to the stored threshold is no step of its own.
    steps = steps[steps.astype(np.float32) != np.float32(threshold.value)]
    return np.union1d(steps, [threshold.value])


def codes_of(activation: NDArray[np.float32], tissue: Mask, steps: Floats) -> Codes:
    """`(H, W)` uint8: how many steps an activation exceeds, so that it is above step k if its code is; else 255."""
    codes = np.searchsorted(steps.astype(np.float32), activation, side="left")
    return np.where(tissue, codes, OFF_TISSUE).astype(np.uint8)


def counts_above(codes: Codes, count: int) -> Counts:
    """`(K,)` pixels above each of `count` steps."""
    at = np.bincount(codes[codes != OFF_TISSUE], minlength=count + 1)
    return at[::-1].cumsum()[::-1][1:]


def area_cut(val: Sequence[SampleMap], threshold: Threshold) -> float:
    """The marked share of tissue from which a sample is called disease: what tells validation samples apart best.

    It maximises Youden's index, sensitivity + specificity - 1 (Cancer 3:32, 1950); in two digits.
    """
    labels = labels_of(val)
    if not 0 < labels.sum() < len(labels):
        return AREA_CUT
    shares = np.unique([0, *area_fractions(val, threshold)])
    cuts = (shares[1:] + shares[:-1]) / 2 if len(shares) > 1 else shares
    called = area_fractions(val, threshold) > cuts[:, None]
    index = called[:, labels == 1].mean(1) - called[:, labels == 0].mean(1)
    best = np.flatnonzero(index == index.max())
    return float(f"{cuts[best[len(best) // 2]]:.2g}")
