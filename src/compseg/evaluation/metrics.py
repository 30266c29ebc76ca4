"""Figures of merit of a set of maps, each as one number. `docs/reference/metrics.md` defines them for users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_average_precision, binary_roc

from compseg.evaluation import bootstrap
from compseg.evaluation.sample_map import SampleMap
from compseg.inference.threshold import Threshold

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic over samples.

    Attributes:
        false_positive_rate: `(K,)`, rising from 0 to 1.
        true_positive_rate: `(K,)`, rising from 0 to 1.
        auc: Area under the curve.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    auc: float


def labels_of(maps: Sequence[SampleMap]) -> NDArray[np.int64]:
    """`(N,)` sample labels, 1 = disease."""
    return np.array([item.info.label for item in maps], dtype=np.int64)


def area_fraction(item: SampleMap, threshold: Threshold) -> float:
    """Thresholded pixels / tissue pixels, in [0, 1]; 0 for a sample without tissue."""
    return float(threshold.apply(item.activation, item.tissue).sum() / max(item.tissue.sum(), 1))


def area_fractions(maps: Sequence[SampleMap], threshold: Threshold) -> Floats:
    """`(N,)` area fraction of each sample."""
    return np.array([area_fraction(item, threshold) for item in maps], dtype=np.float64)


def area_roc(maps: Sequence[SampleMap], threshold: Threshold) -> Roc | None:
    """The paper's ROC (Figure S3): at one activation threshold, a second one runs over the samples' area fractions.

    Returns:
        The curve, or None unless both classes are present.
    """
    labels = labels_of(maps)
    if not 0 < labels.sum() < len(labels):
        return None
    scores = area_fractions(maps, threshold)
    fpr, tpr, _ = binary_roc(torch.from_numpy(scores), torch.from_numpy(labels))
    (auc,) = bootstrap.auc(scores, labels, np.ones((1, len(maps))))
    return Roc(fpr.double().numpy(), tpr.double().numpy(), float(auc))


def with_truth(maps: Sequence[SampleMap]) -> list[SampleMap]:
    """The samples that an expert has looked at, healthy ones with their empty truth included."""
    return [item for item in maps if item.truth is not None]


def with_disease_truth(maps: Sequence[SampleMap]) -> list[SampleMap]:
    """Disease samples whose truth marks at least one tissue pixel: those for which a Dice score means something."""
    return [item for item in with_truth(maps) if item.info.label == 1 and _truth(item).any()]


def pixel_average_precision(maps: Sequence[SampleMap]) -> float | None:
    """Average precision over all tissue pixels of the samples with truth, disease and healthy together.

    `sum_k (R_k - R_(k-1)) P_k` over the distinct activations, without interpolation. It needs no threshold; a map
    without information scores the `prevalence`.

    Returns:
        A number in [0, 1], or None where no pixel is disease.
    """
    seen = with_truth(maps)
    if not with_disease_truth(seen):
        return None
    scores = np.concatenate([item.activation[item.tissue] for item in seen])
    target = np.concatenate([_truth(item)[item.tissue] for item in seen])
    return float(binary_average_precision(torch.from_numpy(scores), torch.from_numpy(target).long()))


def prevalence(maps: Sequence[SampleMap]) -> float | None:
    """Disease pixels / tissue pixels of the samples with truth: what chance scores as pixel average precision.

    None without truth.
    """
    seen = with_truth(maps)
    tissue = sum(int(item.tissue.sum()) for item in seen)
    return sum(int(_truth(item).sum()) for item in seen) / tissue if tissue else None


def dice(item: SampleMap, threshold: Threshold) -> float | None:
    """Dice score `2 |A & B| / (|A| + |B|)` of the thresholded map and the truth on tissue.

    Returns:
        A number in [0, 1], or None for healthy samples and for those without a truth that marks tissue.
    """
    if not with_disease_truth([item]):
        return None
    marked, true = threshold.apply(item.activation, item.tissue), _truth(item)
    return float(2 * (marked & true).sum() / (marked.sum() + true.sum()))


def _truth(item: SampleMap) -> NDArray[np.bool_]:
    return np.zeros_like(item.tissue) if item.truth is None else item.truth & item.tissue


def lower_is_better(metric: str) -> bool:
    """Whether small values of a metric are good. A shim until the table of directions is here."""
    return metric.endswith(("loss", "healthy_area_fraction"))
