"""How every metric of `metrics.json` and `history.csv` is computed; `names` says what it means and which way is better.

`docs/reference/metrics.md` defines the metrics for users. Shapes: N samples, R bootstrap replicates, L levels; weights
`(R, N)` are those of `compseg.evaluation.intervals`. Torch is imported only where pixels are ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compseg.evaluation.curves import Curves, SampleMap, with_disease_truth, with_truth
from compseg.evaluation.intervals import Floats, ratio
from compseg.samples import Mask

if TYPE_CHECKING:
    from compseg.inference.threshold import Threshold

Labels = NDArray[np.int64]


def auc(scores: Floats, labels: Labels) -> float:
    """Area under the ROC over `(N,)` samples; NaN unless both classes are present and all scores finite."""
    # Sorting would put NaN last, as if it were the highest score.
    if not np.isfinite(scores).all():
        return float("nan")
    return float(auc_of_replicates(scores, labels, np.ones((1, len(scores))))[0])


def auc_of_replicates(scores: Floats, labels: Labels, weights: Floats) -> Floats:
    """`(R,)` area under the ROC: how often a disease sample scores above a healthy one, ties counting half.

    That is the statistic of Mann and Whitney, Ann. Math. Stat. 18:50 (1947), over the number of pairs. All sums are of
    halves, hence exact.
    """
    order = np.argsort(scores)
    first = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each run of equal scores
    healthy, disease = (np.add.reduceat((weights * (labels == k))[:, order], first, axis=1) for k in (0, 1))
    below = healthy.cumsum(axis=1) - healthy / 2
    return ratio((disease * below).sum(axis=1), disease.sum(axis=1) * healthy.sum(axis=1))


def roc_curve(scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """False and true positive rates `(K,)` of both classes, rising from 0 to 1, a step for each distinct score."""
    order = np.argsort(-scores)
    last = np.append(np.diff(scores[order]) != 0, True)  # of each run of equal scores
    counts = [np.append(0, (labels[order] == k).cumsum()[last]) for k in (0, 1)]
    false_positives, true_positives = (count / count[-1] for count in counts)
    return false_positives, true_positives


def average_precision(scores: NDArray[np.float32], target: Mask) -> float:
    """`sum_k (R_k - R_(k-1)) P_k` over the distinct scores `(n,)` in [0, 1] of pixels, without interpolation.

    Torchmetrics computes it in float32, about six digits; NaN where no pixel is disease.
    """
    # Here, so that whoever only asks for a metric's direction does not wait for torch.
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    if not target.any():
        return float("nan")
    return float(binary_average_precision(torch.from_numpy(scores), torch.from_numpy(target).long()))


def average_precision_of_ranked(scores: NDArray[np.float32], target: Mask) -> float:
    """`average_precision` in float64 for scores that are in falling order already: one sort serves many targets."""
    if not target.any():
        return float("nan")
    last = np.append(scores[1:] != scores[:-1], True)  # of each run of equal scores
    hits = target.cumsum()[last]
    return float((np.diff(hits, prepend=0) * hits / (np.flatnonzero(last) + 1)).sum() / hits[-1])


def average_precision_of_replicates(curves: Curves, weights: Floats) -> Floats:
    """`(R,)` average precision over all pixels from counts at the curves' levels; between two levels they are ties."""
    # The first column holds all pixels, as a level below 0 would: activations of exactly 0 are above no level.
    above = weights @ np.column_stack([curves.tissue, curves.above])
    hits = weights @ np.column_stack([curves.disease, curves.hits])
    # A level that nothing exceeds has no hits either: 0 instead of 0 / 0.
    precision = hits / np.maximum(above, 1)
    gained = hits - np.column_stack([hits[:, 1:], np.zeros(len(hits))])
    return ratio((gained * precision).sum(axis=1), hits[:, 0])


def pixel_average_precision(maps: Sequence[SampleMap]) -> float | None:
    """Average precision over all tissue pixels of the samples with truth, disease and healthy together.

    It needs no threshold; a map without information scores the `prevalence`.

    Returns:
        A number in [0, 1], or None where no pixel is disease.
    """
    seen = with_truth(maps)
    if not with_disease_truth(seen):
        return None
    scores = np.concatenate([item.activation[item.tissue] for item in seen])
    return average_precision(scores, np.concatenate([item.region[item.tissue] for item in seen]))


def prevalence(maps: Sequence[SampleMap]) -> float | None:
    """Disease pixels / tissue pixels of the samples with truth: what chance scores as pixel average precision.

    None without truth.
    """
    seen = with_truth(maps)
    tissue = sum(int(item.tissue.sum()) for item in seen)
    return sum(int(item.region.sum()) for item in seen) / tissue if tissue else None


def area_fraction(item: SampleMap, threshold: Threshold) -> float:
    """Thresholded pixels / tissue pixels, in [0, 1]; 0 for a sample without tissue."""
    return float(threshold.apply(item.activation, item.tissue).sum() / max(item.tissue.sum(), 1))


def area_fractions(maps: Sequence[SampleMap], threshold: Threshold) -> Floats:
    """`(N,)` area fraction of each sample: the scores of the paper's ROC (Figure S3)."""
    return np.array([area_fraction(item, threshold) for item in maps], dtype=np.float64)


def dice(item: SampleMap, threshold: Threshold) -> float | None:
    """Dice score `2 |A & B| / (|A| + |B|)` of the thresholded map and the truth on tissue.

    Returns:
        A number in [0, 1], or None for healthy samples and for those without a truth that marks tissue.
    """
    if not with_disease_truth([item]):
        return None
    marked, true = threshold.apply(item.activation, item.tissue), item.region
    return float(2 * (marked & true).sum() / (marked.sum() + true.sum()))


def best_dice_of_replicates(curves: Curves, weights: Floats) -> Floats:
    """`(R,)` highest mean Dice at any one threshold, found again in each replicate."""
    best = (weights @ curves.dice).max(axis=1)
    return ratio(best, weights.sum(axis=1))
