"""The result in words: how good it is, how it was judged, and what is weak about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compseg.evaluation.curves import SampleMap, curves_of, labels_of, with_disease_truth
from compseg.evaluation.metrics import prevalence
from compseg.evaluation.shortcuts import Cue, GroupGap, Origin, Shortcuts
from compseg.inference.threshold import Threshold

FEW = 10  # samples of a class below which no interval is to be trusted
# What these three say of the phantoms, with and without a shortcut, is in docs/explanation/shortcuts.md.
SURE = 0.01  # p below which groups differ, or a cue is more than chance
TELLING = 0.8  # AUC from which a cue or a group tells the labels well enough to be learned instead of the region
MATTERS = 0.25  # share of the classes' distance in x, above which a distance of groups matters


@dataclass(frozen=True)
class MetricLine:
    """A metric to show: its name, value and interval as text, and a remark."""

    name: str
    value: str
    interval: str
    remark: str


@dataclass(frozen=True)
class Verdict:
    """What the first screen of the report says.

    Attributes:
        headline: One sentence.
        metrics: The metrics it rests on.
        weak: What the reader should not overlook, a sentence each; empty where nothing stands out.
    """

    headline: str
    metrics: list[MetricLine]
    weak: list[str]


def verdict_on(
    metrics: Mapping[str, float], threshold: Threshold, maps: Sequence[SampleMap], shortcuts: Shortcuts
) -> Verdict:
    """Put the metrics into words.

    Args:
        metrics: As `compseg.evaluation.tables` makes them.
        threshold: The fitted threshold.
        maps: Test samples.
        shortcuts: Signs that the maps follow something other than the region.
    """
    weak = [
        *_weak_split(maps),
        *_weak_threshold(threshold, metrics),
        *_weak_outline(metrics, maps),
        *_weak_region(metrics, maps),
        *(_weak_origin(shortcuts.origin) if shortcuts.origin else ()),
        *(_weak_groups(shortcuts.groups) if shortcuts.groups else ()),
        *(sentence for cue in shortcuts.cues for sentence in _weak_cue(cue)),
    ]
    return Verdict(_headline(metrics), list(_metrics(metrics, threshold, maps, shortcuts.origin)), weak)


def _headline(metrics: Mapping[str, float]) -> str:
    if "test/area_auc" not in metrics:
        return "Only one class is in the test split: how well samples are told apart cannot be said."
    auc, low, high = (metrics[f"test/area_auc{end}"] for end in ("", "_ci_low", "_ci_high"))
    # By the interval and not the value: of a few samples a high AUC may be chance.
    if low <= 0.5:
        start = "The maps are not shown to tell disease samples from healthy ones better than chance"
    else:
        start = f"The maps tell disease samples from healthy ones {'well' if auc >= 0.9 else 'with errors'}"
    tail = "Without an expert's truth, how well they outline disease is unknown."
    if (dice := metrics.get("test/dice_mean")) is not None:
        tail = f"Their outlines agree with the expert's to a mean Dice of {dice:.2f}."
    return f"{start} (area AUC {auc:.3f}, 95 % interval {low:.2f} to {high:.2f}). {tail}"


def _metrics(
    metrics: Mapping[str, float], threshold: Threshold, maps: Sequence[SampleMap], origin: Origin | None
) -> Iterator[MetricLine]:
    chance, disease = prevalence(maps), int(labels_of(maps).sum())
    new = ""
    if origin is not None and origin.new:
        new = f"; {'all' if origin.new == origin.total else origin.new} of groups that training never saw"
    remarks = {
        "test/area_auc": ("area AUC", f"{disease} disease, {len(maps) - disease} healthy samples{new}"),
        "test/dice_mean": ("mean Dice", f"best single threshold {metrics.get('test/dice_best', np.nan):.2f}"),
        "test/pixel_ap": ("pixel average precision", f"chance is the prevalence, {chance or 0:.2f}"),
        "test/healthy_area_fraction": ("healthy tissue marked", "mean over healthy samples"),
        "threshold": ("threshold", threshold.how),
    }
    for key, (name, remark) in remarks.items():
        if key in metrics:
            low, high = (metrics.get(f"{key}_ci_{end}", np.nan) for end in ("low", "high"))
            interval = f"{_number(low, 2)} to {_number(high, 2)}" if low < high else ""
            yield MetricLine(name, _number(metrics[key], 3), interval, remark)


def _number(value: float, digits: int) -> str:
    # Faint maps have thresholds of a thousandth: fixed digits would hide them.
    return f"{value:.{digits}f}" if value >= 0.01 or value == 0 else f"{value:.2g}"


def _weak_split(maps: Sequence[SampleMap]) -> Iterator[str]:
    disease = int(labels_of(maps).sum())
    for count, name in ((disease, "disease"), (len(maps) - disease, "healthy")):
        if count < FEW:
            noun = f"{name} sample{'' if count == 1 else 's'}"
            yield f"Only {count} {noun} to judge by: the intervals are rough, if anything too narrow."


def _weak_threshold(threshold: Threshold, metrics: Mapping[str, float]) -> Iterator[str]:
    # By its origin, since the words may change.
    if threshold.origin == "fixed":
        yield f"The threshold was not fitted to this model's maps ({threshold.how})."
    elif threshold.origin == "fallback":
        yield f"The threshold is a fallback: {threshold.how}."
    lost = metrics.get("test/dice_best", 0.0) - metrics.get("test/dice_mean", 0.0)
    if lost > 0.1:
        yield f"The threshold does not carry over to the test samples: the best one would gain {lost:.2f} of Dice."


def _weak_outline(metrics: Mapping[str, float], maps: Sequence[SampleMap]) -> Iterator[str]:
    if "test/dice_mean" in metrics:
        # On maps without information Dice is highest where all tissue is marked (docs/explanation/thresholds.md).
        whole, chance = dice_of_all_tissue(maps), prevalence(maps)
        if metrics["test/dice_mean"] < whole + 0.05:
            yield f"The outlines are hardly better than marking all tissue, which has a mean Dice of {whole:.2f}."
        # Where more than half is disease, 1.5 times chance is too much to ask, and beyond 2 / 3 more than 1.
        if chance and metrics.get("test/pixel_ap", 1.0) < min(1.5 * chance, (1 + chance) / 2):
            yield (
                "Activations hardly rank diseased pixels above others: chance has an average precision of "
                f"{chance:.2f}."
            )
    else:
        yield "No disease sample of the test split has an expert's truth: the outlines themselves are unchecked."
    if (marked := metrics.get("test/healthy_area_fraction", 0.0)) > 0.1:
        yield f"{100 * marked:.0f} % of healthy tissue is marked as disease."


def dice_of_all_tissue(maps: Sequence[SampleMap]) -> float:
    """Mean Dice over disease samples of a map that marks all tissue, `2 p / (1 + p)` at share p: a baseline."""
    curves = curves_of(with_disease_truth(maps))
    share = curves.disease / curves.tissue
    return float(np.mean(2 * share / (1 + share)))


def _weak_region(metrics: Mapping[str, float], maps: Sequence[SampleMap]) -> Iterator[str]:
    # Maps that do not tell samples apart cannot do so by something else.
    if "test/pixel_ap" in metrics and metrics.get("test/area_auc_ci_low", 0.0) > 0.5:
        whole = prevalence(with_disease_truth(maps)) or 0.0
        if metrics["test/pixel_ap"] < min(1.2 * whole, (1 + whole) / 2):
            yield (
                "The maps tell samples apart by something that is not the region: they rank pixels hardly better than "
                f"maps that light up all of a disease sample, which have an average precision of {whole:.2f}."
            )
    if metrics.get("test/pixel_ap_own", 1.0) <= metrics.get("test/pixel_ap_swapped_ci_high", 0.0):
        low, high = (metrics[f"test/pixel_ap_swapped_ci_{end}"] for end in ("low", "high"))
        yield (
            "The maps fit the truth of other disease samples as well as their own "
            f"(average precision {metrics['test/pixel_ap_own']:.2f}; swapped {low:.2f} to {high:.2f}): "
            "if anything, they follow a sample's outline or place and not its disease."
        )


def _weak_origin(origin: Origin) -> Iterator[str]:
    if origin.inseparable:
        yield "Each group (array, slide or scanner) holds one class: no metric here can tell disease from array."
    elif origin.told >= TELLING:
        yield (
            f"The group alone tells the labels of the training samples with AUC {origin.told:.2f}: "
            "the array may be what was learned."
        )
    if not origin.named:
        yield "The cohort names no groups: whether the maps carry over to another array, slide or scanner is untested."
    elif not origin.new:
        yield (
            "Every test sample is of a group that training has seen: carrying over to another array is untested; "
            "data.held_out=GROUP or compseg.compare cv=group tests it."
        )


def _weak_groups(gap: GroupGap) -> Iterator[str]:
    # Both, because among many samples a sure difference may be too small to matter.
    if gap.p < SURE and gap.medians[0] - gap.medians[1] > MATTERS * gap.separation:
        high, low = (_number(value, 2) for value in gap.medians)
        yield (
            f"Healthy samples of group {gap.high} are more active than those of {gap.low} (median x {high} and {low}, "
            f"Kruskal-Wallis p {gap.p:.1g}): the maps show the group."
        )


def _weak_cue(cue: Cue) -> Iterator[str]:
    told = max(cue.told, 1 - cue.told)
    if told < TELLING or cue.p >= SURE:
        return
    start = f"{cue.name.capitalize()} alone tells the labels of the training samples with AUC {told:.2f}"
    # Where disease samples have less of it, maps that follow it are the more active the less there is.
    if cue.p_followed < SURE and (cue.followed > 0) == (cue.told > 0.5):
        yield f"{start}, and healthy test samples' activation follows it (rank correlation {cue.followed:.2f})."
    else:
        yield f"{start}: it may be what was learned, though healthy test samples' activation does not surely follow it."
