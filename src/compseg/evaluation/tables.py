"""`metrics.json` and `samples.csv`: every figure of merit with its interval, and a row for every sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compseg.evaluation import bootstrap
from compseg.evaluation.curves import curves_of
from compseg.evaluation.metrics import (
    area_fraction,
    area_fractions,
    area_roc,
    dice,
    labels_of,
    pixel_average_precision,
    with_disease_truth,
    with_truth,
)
from compseg.evaluation.resampling import percentile_interval, resample
from compseg.evaluation.sample_map import SampleMap
from compseg.evaluation.shortcuts import swapped_truth
from compseg.files import atomic_open, atomic_text, csv_text
from compseg.inference.threshold import Threshold

REPLICATES = 1000
FIGURES = ("area_auc", "healthy_area_fraction", "dice_mean", "dice_std", "dice_best", "pixel_ap")
NEED_TRUTH = ("dice_mean", "dice_std", "dice_best", "pixel_ap")
# Figures that a method may be chosen by: with these, no test sample is looked at.
FOR_SELECTION = ("area_auc", "pixel_ap", "dice_best")
COLUMNS = ("sample", "label", "class", "group", "patient", "area_fraction", "output", "dice")

Floats = NDArray[np.float64]
Figure = tuple[float, Floats]  # a figure of merit and its value in each bootstrap replicate


def figures(maps: Sequence[SampleMap], threshold: Threshold, seed: int = 0) -> dict[str, Figure]:
    """Every figure of merit of a set of maps with its bootstrap replicates.

    Args:
        maps: Samples of one split with their maps.
        threshold: Fitted on validation samples.
        seed: Of the bootstrap (1000 replicates over patients, or samples where no patient is named). The draws depend
            on the samples alone, so those of two runs judged on the same samples are paired.

    Returns:
        Figures by their names without a split. What cannot be computed, for want of truth or of a class, is absent.
    """
    weights = resample([item.info for item in maps], REPLICATES, seed)
    return (
        _sample_figures(maps, threshold, weights)
        | _dice_figures(maps, threshold, weights)
        | _pixel_figures(maps, weights)
    )


def figures_of_splits(
    val: Sequence[SampleMap], test: Sequence[SampleMap], threshold: Threshold, seed: int = 0
) -> dict[str, Figure]:
    """`test/...`, all figures of the test samples, and `val/...`, those of `FOR_SELECTION` of the validation samples.

    A split without samples has no figures. Test samples with truth have `test/pixel_ap_own` and
    `test/pixel_ap_swapped` besides, a check and no merit.
    """
    by_split = {
        "val": figures(val, threshold, seed),
        "test": figures(test, threshold, seed) | _swapped_figures(test, seed),
    }
    return {
        f"{split}/{name}": figure
        for split, found in by_split.items()
        for name, figure in found.items()
        if split == "test" or name in FOR_SELECTION
    }


def metrics(found: Mapping[str, Figure], threshold: Threshold, val_loss: float) -> dict[str, float]:
    """What `metrics.json` holds: flat, finite numbers.

    Args:
        found: As `figures_of_splits` gives them.
        threshold: Fitted on validation samples, never on test samples.
        val_loss: Loss of the chosen checkpoint on the validation split.

    Returns:
        `val/loss`, `threshold` and each figure, the last two with `_ci_low` and `_ci_high` beside them.
    """
    flat = {"val/loss": float(val_loss), **_beside("threshold", threshold.value, threshold.low, threshold.high)}
    for name, (value, replicates) in found.items():
        flat |= _beside(name, value, *percentile_interval(replicates))
    return {key: value for key, value in flat.items() if math.isfinite(value)}


def write_replicates(found: Mapping[str, Figure], path: Path) -> None:
    """Write the bootstrap replicates of each figure, `(1000,)` float64 under its name, as .npz."""
    with atomic_open(path) as file:
        np.savez(file, **{name: replicates for name, (_, replicates) in found.items()})  # type: ignore[arg-type]


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


def _swapped_figures(maps: Sequence[SampleMap], seed: int) -> dict[str, Figure]:
    found = swapped_truth(with_disease_truth(maps), seed)
    if found is None:
        return {}
    judged = [item for item in maps if item.info.name in found.samples]
    weights = _of(judged, maps, resample([item.info for item in maps], REPLICATES, seed))
    return {
        "pixel_ap_own": (float(found.own.mean()), bootstrap.mean(found.own, weights)),
        "pixel_ap_swapped": (float(found.swapped.mean()), found.swapped),
    }


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
