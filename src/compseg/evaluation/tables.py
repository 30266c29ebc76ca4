"""`metrics.json` and `samples.csv`: every metric with its interval, and a row for every sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from compseg.evaluation.curves import SampleMap, curves_of, labels_of, with_disease_truth, with_truth
from compseg.evaluation.intervals import Floats, mean, percentile_interval, resample, std
from compseg.evaluation.metrics import (
    area_fraction,
    area_fractions,
    auc_of_replicates,
    average_precision_of_replicates,
    best_dice_of_replicates,
    dice,
    pixel_average_precision,
)
from compseg.evaluation.names import MAP_METRICS
from compseg.evaluation.shortcuts import swapped_truth
from compseg.files import atomic_open, atomic_text, csv_text
from compseg.inference.threshold import Threshold

REPLICATES = 1000
COLUMNS = ("sample", "label", "class", "group", "patient", "area_fraction", "output", "dice")

Measured = tuple[float, Floats]  # a metric's value, and its value in each bootstrap replicate


def metrics_of(maps: Sequence[SampleMap], threshold: Threshold, seed: int = 0) -> dict[str, Measured]:
    """Every metric of a set of maps with its bootstrap replicates.

    Args:
        maps: Samples of one split with their maps.
        threshold: Fitted on validation samples.
        seed: Of the bootstrap (1000 replicates over patients, or samples where no patient is named). The replicates
            depend on the samples alone, so those of two runs judged on the same samples are paired.

    Returns:
        Metrics by their names without a split. What cannot be computed, for want of truth or of a class, is absent.
    """
    # One set of replicates for all metrics, and for all runs on these samples: differences are then paired.
    weights = resample([item.info for item in maps], REPLICATES, seed)
    return _sample_metrics(maps, threshold, weights) | _truth_metrics(maps, threshold, weights)


def _sample_metrics(maps: Sequence[SampleMap], threshold: Threshold, weights: Floats) -> dict[str, Measured]:
    fractions, labels = area_fractions(maps, threshold), labels_of(maps)
    found: dict[str, Measured] = {}
    if 0 < labels.sum() < len(labels):
        (area,) = auc_of_replicates(fractions, labels, np.ones((1, len(maps))))
        found["area_auc"] = float(area), auc_of_replicates(fractions, labels, weights)
    if (healthy := labels == 0).any():
        replicates = mean(fractions[healthy], weights[:, healthy])
        found["healthy_area_fraction"] = float(fractions[healthy].mean()), replicates
    return found


def _truth_metrics(maps: Sequence[SampleMap], threshold: Threshold, weights: Floats) -> dict[str, Measured]:
    judged, seen = with_disease_truth(maps), with_truth(maps)
    if not judged:
        return {}
    values, curves = np.array([dice(item, threshold) for item in judged], dtype=np.float64), curves_of(judged)
    once, of_judged = np.ones((1, len(judged))), _columns(weights, judged, maps)
    pixel_ap = pixel_average_precision(maps)
    assert pixel_ap is not None
    return {
        "dice_mean": (float(values.mean()), mean(values, of_judged)),
        "dice_std": (float(std(values, once)[0]), std(values, of_judged)),
        "dice_best": (float(best_dice_of_replicates(curves, once)[0]), best_dice_of_replicates(curves, of_judged)),
        # Of healthy samples too: whoever marks their tissue loses precision, while their Dice is undefined.
        "pixel_ap": (pixel_ap, average_precision_of_replicates(curves_of(seen), _columns(weights, seen, maps))),
    }


def _swapped_metrics(maps: Sequence[SampleMap], seed: int) -> dict[str, Measured]:
    found = swapped_truth(with_disease_truth(maps), seed)
    if found is None:
        return {}
    judged = [item for item in maps if item.info.name in found.samples]
    weights = _columns(resample([item.info for item in maps], REPLICATES, seed), judged, maps)
    return {
        "pixel_ap_own": (float(found.own.mean()), mean(found.own, weights)),
        # The spread of the swaps themselves: what chance gives, and not how samples differ.
        "pixel_ap_swapped": (float(found.swapped.mean()), found.swapped),
    }


def _columns(weights: Floats, some: Sequence[SampleMap], maps: Sequence[SampleMap]) -> Floats:
    names = {item.info.name for item in some}
    return weights[:, [item.info.name in names for item in maps]]


def metrics_of_splits(
    val: Sequence[SampleMap], test: Sequence[SampleMap], threshold: Threshold, seed: int = 0
) -> dict[str, Measured]:
    """`test/...`, all metrics of the test samples, and `val/...`, those of the validation samples to select by.

    A split without samples has no metrics. Test samples with truth also have `test/pixel_ap_own` and
    `test/pixel_ap_swapped`, a check and no merit.
    """
    of_val, of_test = metrics_of(val, threshold, seed), metrics_of(test, threshold, seed)
    return {f"val/{name}": found for name, found in of_val.items() if MAP_METRICS[name].selects} | {
        f"test/{name}": found for name, found in (of_test | _swapped_metrics(test, seed)).items()
    }


def flat_metrics(found: Mapping[str, Measured], threshold: Threshold, val_loss: float | None) -> dict[str, float]:
    """What `metrics.json` holds: flat, finite numbers.

    Args:
        found: As `metrics_of_splits` gives them.
        threshold: Fitted on validation samples, never on test samples.
        val_loss: Loss of the chosen checkpoint on the validation split; None where that has no part in it.

    Returns:
        `val/loss`, `threshold` and each metric, the last two with `_ci_low` and `_ci_high` beside them.
    """
    rows = {"threshold": (threshold.value, threshold.low, threshold.high)} | {
        name: (value, *percentile_interval(replicates)) for name, (value, replicates) in found.items()
    }
    flat = ({} if val_loss is None else {"val/loss": float(val_loss)}) | {
        f"{name}{end}": value
        for name, row in rows.items()
        for end, value in zip(("", "_ci_low", "_ci_high"), row, strict=True)
    }
    # Left out, because JSON has no NaN and infinity.
    return {key: value for key, value in flat.items() if math.isfinite(value)}


def write_replicates(found: Mapping[str, Measured], path: Path) -> None:
    """Write the bootstrap replicates of each metric, `(1000,)` float64 under its name, as .npz."""
    with atomic_open(path) as file:
        np.savez(file, **{name: replicates for name, (_, replicates) in found.items()})  # type: ignore[arg-type]


def samples_csv(maps: Sequence[SampleMap], threshold: Threshold, path: Path, files: Mapping[str, str]) -> None:
    """Write a row for every test sample, atomically; `dice` is empty where there is no truth to compare with.

    `files` is what the files of each sample's map are called: a column of its own where that is not the sample's name.
    """
    differ = any(name != file for name, file in files.items())
    rows = (sample_row(item, threshold) + (files[item.info.name],) * differ for item in maps)
    atomic_text(path, csv_text((*COLUMNS, "file") if differ else COLUMNS, rows))


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
