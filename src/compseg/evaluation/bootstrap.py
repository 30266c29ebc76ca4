"""Figures of merit of many bootstrap replicates at once.

A replicate is a row of weights: how often it holds each sample (`compseg.evaluation.resampling`). Each function takes R
such rows and returns R values; undefined ones are NaN. With a single row of ones they give the figure itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compseg.evaluation.curves import Curves

Floats = NDArray[np.float64]


def mean(values: Floats, weights: Floats) -> Floats:
    """Weighted mean of `(N,)` values for each of `(R, N)` weights."""
    return _ratio(weights @ values, weights.sum(axis=1))


def std(values: Floats, weights: Floats) -> Floats:
    """Standard deviation over the samples of a replicate, with n - 1; NaN where it holds fewer than two."""
    deviations = (values - mean(values, weights)[:, None]) ** 2
    return np.sqrt(_ratio((weights * deviations).sum(axis=1), weights.sum(axis=1) - 1))


def auc(scores: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """Area under the ROC: how often a disease sample scores above a healthy one, ties counting half (Mann-Whitney)."""
    disease, healthy = labels == 1, labels == 0
    gap = scores[disease][:, None] - scores[healthy]
    wins = (gap > 0) + 0.5 * (gap == 0)
    won = ((weights[:, disease] @ wins) * weights[:, healthy]).sum(axis=1)
    return _ratio(won, weights[:, disease].sum(axis=1) * weights[:, healthy].sum(axis=1))


def dice_best(curves: Curves, weights: Floats) -> Floats:
    """The highest mean Dice that one threshold reaches, found anew in each replicate."""
    best = (weights @ curves.dice).max(axis=1)
    return _ratio(best, weights.sum(axis=1))


def average_precision(curves: Curves, weights: Floats) -> Floats:
    """Average precision over all pixels from counts at the curves' levels; pixels between two levels count as ties."""
    # The first column holds all pixels, as a level below 0 would: activations of exactly 0 lie above no level.
    above = weights @ np.column_stack([curves.tissue, curves.above])
    hits = weights @ np.column_stack([curves.disease, curves.hits])
    precision = hits / np.maximum(above, 1)
    gained = hits - np.column_stack([hits[:, 1:], np.zeros(len(hits))])
    return _ratio((gained * precision).sum(axis=1), hits[:, 0])


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio
