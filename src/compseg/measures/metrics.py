"""`metrics.json` and `samples.csv`: every figure of merit with its interval, and a row for every sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compseg.files import atomic_text, csv_text
from compseg.maps.curves import curves_of
from compseg.maps.resampling import percentile_interval, resample
from compseg.maps.threshold import Threshold
from compseg.measures import bootstrap
from compseg.measures.sample_map import SampleMap
from compseg.measures.scores import (
    area_fraction,
    area_fractions,
    area_roc,
    dice,
    labels_of,
    pixel_average_precision,
    with_disease_truth,
    with_truth,
)

REPLICATES = 1000
COLUMNS = ("sample", "label", "class", "group", "patient", "area_fraction", "output", "dice")

Floats = NDArray[np.float64]
Figure = tuple[float, Floats]  # a figure of merit and its value in each bootstrap replicate


def metrics(maps: Sequence[SampleMap], threshold: Threshold, val_loss: float, seed: int = 0) -> dict[str, float]:
    """Every figure of merit of the test split, flat and finite.

    Args:
        maps: Test samples with their maps.
        threshold: Fitted on validation samples, never on these.
        val_loss: Loss of the chosen checkpoint on the validation split.
        seed: Of the bootstrap (1000 replicates over patients, or samples where no patient is named).

    Returns:
        `val/loss`; `threshold` and each `test/...` figure with `_ci_low` and `_ci_high` beside it. What cannot be
        computed, for want of truth or of one of the classes, is absent.
    """
    found = {"val/loss": float(val_loss), **_beside("threshold", threshold.value, threshold.low, threshold.high)}
    weights = resample([item.info for item in maps], REPLICATES, seed)
    figures = (
        _sample_figures(maps, threshold, weights)
        | _dice_figures(maps, threshold, weights)
        | _pixel_figures(maps, weights)
    )
    for name, (value, replicates) in figures.items():
        found |= _beside(f"test/{name}", value, *percentile_interval(replicates))
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _beside(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _sample_figures(maps: Sequence[SampleMap], threshold: Threshold, weights: Floats) -> dict[str, Figure]:
    fractions, labels = area_fractions(maps, threshold), labels_of(maps)
    found: dict[str, Figure] = {}
    if roc := area_roc(maps, threshold):
        found["area_auc"] = roc.auc, bootstrap.auc(fractions, labels, weights)
    if (healthy := labels == 0).any():
        replicates = bootstrap.mean(fractions[healthy], weights[:, healthy])
        found["healthy_area_fraction"] = float(fractions[healthy].mean()), replicates
    return found


def _dice_figures(maps: Sequence[SampleMap], threshold: Threshold, weights: Floats) -> dict[str, Figure]:
    judged = with_disease_truth(maps)
    if not judged:
        return {}
    values, curves = np.array([dice(item, threshold) for item in judged], dtype=np.float64), curves_of(judged)
    weights = _of(judged, maps, weights)
    once = np.ones((1, len(judged)))
    return {
        "dice_mean": (float(values.mean()), bootstrap.mean(values, weights)),
        "dice_std": (float(bootstrap.std(values, once)[0]), bootstrap.std(values, weights)),
        "dice_best": (float(bootstrap.dice_best(curves, once)[0]), bootstrap.dice_best(curves, weights)),
    }


def _pixel_figures(maps: Sequence[SampleMap], weights: Floats) -> dict[str, Figure]:
    value = pixel_average_precision(maps)
    if value is None:
        return {}
    seen = with_truth(maps)
    return {"pixel_ap": (value, bootstrap.average_precision(curves_of(seen), _of(seen, maps, weights)))}


def _of(some: Sequence[SampleMap], maps: Sequence[SampleMap], weights: Floats) -> Floats:
    names = {item.info.name for item in some}
    return weights[:, [item.info.name in names for item in maps]]


def samples_csv(maps: Sequence[SampleMap], threshold: Threshold, path: Path) -> Path:
    """Write a row for every test sample, atomically; `dice` is empty where there is no truth to compare with.

    Returns:
        `path`.
    """
    atomic_text(path, csv_text(COLUMNS, (sample_row(item, threshold) for item in maps)))
    return path


def sample_row(item: SampleMap, threshold: Threshold) -> tuple[str | int | float, ...]:
    """The values of `COLUMNS` for one sample."""
    info, score = item.info, dice(item, threshold)
    return (
        info.name,
        info.label,
        info.class_name,
        info.group,
        info.patient,
        round(area_fraction(item, threshold), 6),
        round(item.output, 6),
        "" if score is None else round(score, 6),
    )
