"""One sample as a row of small pictures: reference, activation, thresholded, truth (the paper's Figures 3 and S2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compseg.evaluation.metrics import area_fraction, dice
from compseg.evaluation.sample_map import SampleMap
from compseg.inference.threshold import Threshold
from compseg.plots.overlay import RGB, as_rgb
from compseg.plots.style import paint_activation, paint_mask

TITLES = ("reference", "activation", "thresholded", "truth")


def panels(item: SampleMap, threshold: Threshold, picture: RGB | None, ceiling: float) -> dict[str, RGB]:
    """Pictures of one sample by title, in the order of `TITLES`.

    Args:
        item: The sample.
        threshold: Above which a pixel counts as disease.
        picture: Its reference picture, `(h, w, 3)` uint8; left out where None, as the truth is.
        ceiling: Activation that gets the brightest colour, the same for all samples of a page.

    Returns:
        `(h, w, 3)` uint8 each; maps have the activation's size.
    """
    row = {} if picture is None else {"reference": as_rgb(picture)}
    row["activation"] = paint_activation(item.activation, item.tissue, ceiling)
    row["thresholded"] = paint_mask(threshold.apply(item.activation, item.tissue), item.tissue)
    if item.truth is not None:
        row["truth"] = paint_mask(item.truth & item.tissue, item.tissue)
    return row


def colour_ceiling(maps: Sequence[SampleMap], threshold: Threshold) -> float:
    """The activation that gets the brightest colour: 1, or less for faint maps, but never below twice the threshold."""
    highest = [float(np.percentile(item.activation[item.tissue], 99)) for item in maps if item.tissue.any()]
    return float(np.clip(max(highest, default=1.0), min(2 * threshold.value, 1.0), 1.0)) or 1.0


def caption(item: SampleMap, threshold: Threshold) -> str:
    """`disease (T) · 31 % marked · Dice 0.62`."""
    word = "disease" if item.info.label == 1 else "healthy"
    parts = [f"{word} ({item.info.class_name})" if item.info.class_name else word]
    parts.append(f"{100 * area_fraction(item, threshold):.0f} % marked")
    score = dice(item, threshold)
    return " · ".join(parts if score is None else [*parts, f"Dice {score:.2f}"])


def ranked(maps: Sequence[SampleMap], threshold: Threshold) -> list[SampleMap]:
    """Disease samples, then healthy ones, each from best to worst, by Dice where there is truth, else by area."""

    def badness(item: SampleMap) -> tuple[int, float]:
        fraction, score = area_fraction(item, threshold), dice(item, threshold)
        if item.info.label == 0:
            return 1, fraction
        return 0, -fraction if score is None else -score

    return sorted(maps, key=badness)


def spread(items: Sequence[SampleMap], count: int) -> list[SampleMap]:
    """At most `count` of the samples, evenly spaced, first and last among them: a choice without a hand in it."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in places]


def chosen(maps: Sequence[SampleMap], threshold: Threshold, per_class: int = 3) -> list[SampleMap]:
    """Best, middle and worst samples of each class."""
    order = ranked(maps, threshold)
    return [item for label in (1, 0) for item in spread([m for m in order if m.info.label == label], per_class)]
