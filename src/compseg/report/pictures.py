"""From judged maps to the pictures of the report: which samples are shown, in what order and with which caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.evaluation.curves import SampleMap, curves_of, labels_of, with_disease_truth
from compseg.evaluation.metrics import area_fraction, area_fractions, auc, dice, roc_curve
from compseg.inference.threshold import Threshold
from compseg.plots import figures
from compseg.plots.gallery import Tile, gallery, paint_activation, paint_mask, vmax_of
from compseg.plots.overlay import RGB, as_rgb
from compseg.plots.style import DISEASE, HEALTHY

BINS = 50
T = TypeVar("T")


def draw_figures(
    threshold: Threshold,
    test_maps: Sequence[SampleMap],
    val_maps: Sequence[SampleMap],
    history: Mapping[str, Sequence[float]],
    thumbnails: Mapping[str, RGB],
    spectra: figures.Spectra | None,
) -> dict[str, Figure]:
    """Every figure of the report by file name; what there is no data for is absent."""
    # Together, because the test split is often a single array, with which nothing could be compared.
    everyone = [*val_maps, *test_maps]
    groups = [item.info.group for item in everyone]
    drawn = {
        "gallery": gallery(tiles_of(chosen(test_maps, threshold), threshold, thumbnails)),
        "roc": draw_roc(test_maps, threshold),
        "threshold": draw_threshold_curves(test_maps, threshold),
        "activations": draw_histogram(test_maps, threshold),
        "groups": figures.activation_by_group(
            groups, [item.info.label for item in everyone], [item.pooled for item in everyone]
        ),
    }
    if history:
        drawn["learning"] = figures.learning_curves(history)
    if spectra is not None:
        drawn["spectra"] = figures.spectra(spectra)
    return drawn


def draw_roc(maps: Sequence[SampleMap], threshold: Threshold) -> Figure:
    """ROC over samples by area fraction (Figure S3); that of chance alone where one class is present."""
    scores, labels = area_fractions(maps, threshold), labels_of(maps)
    area, disease = auc(scores, labels), int(labels.sum())
    curves = {f"area fraction, AUC {area:.3f}": roc_curve(scores, labels)} if np.isfinite(area) else {}
    return figures.roc(curves, f"{disease} disease and {len(maps) - disease} healthy samples")


def draw_threshold_curves(maps: Sequence[SampleMap], threshold: Threshold) -> Figure:
    """Marked area of each class and, with truth, Dice scores, against the threshold."""
    curves, labels, judged = curves_of(maps), labels_of(maps), with_disease_truth(maps)
    marked = {
        name: curves.fractions[labels == label].mean(0)
        for label, name in ((1, "disease"), (0, "healthy"))
        if (labels == label).any()
    }
    of_judged = curves_of(judged)
    scores = (of_judged.levels, of_judged.dice) if judged else None
    interval, vmax = (threshold.value, threshold.low, threshold.high), colour_vmax(maps, threshold)
    return figures.threshold_curves(marked, curves.levels, scores, interval, vmax)


def draw_histogram(maps: Sequence[SampleMap], threshold: Threshold) -> Figure:
    """How activations are distributed in healthy and in disease samples, these split by the truth if there is one."""
    vmax = colour_vmax(maps, threshold)
    groups = [
        figures.Counts(name, _counts(parts, vmax), HEALTHY if name == "healthy samples" else DISEASE, style)
        for (name, parts), style in zip(_activations(maps).items(), ("-", "-", "-", ":"), strict=True)
    ]
    interval = threshold.value, threshold.low, threshold.high
    return figures.histogram(groups, "distribution of activations", vmax, interval)


def histogram_of(maps: Sequence[SampleMap], vmax: float) -> dict[str, list[float]]:
    """Share of tissue pixels in even bins of activation from 0 to `vmax`, by group; groups without any are absent."""
    counts = {name: _counts(parts, vmax) for name, parts in _activations(maps).items()}
    return {name: (each / each.sum()).tolist() for name, each in counts.items() if each.sum()}


def _activations(maps: Sequence[SampleMap]) -> dict[str, list[NDArray[np.float32]]]:
    """Activations on tissue, by what is known of it."""
    healthy, unseen, inside, outside = [], [], [], []
    for item in maps:
        if item.info.label == 0:
            healthy.append(item.activation[item.tissue])
        elif item.truth is None:
            unseen.append(item.activation[item.tissue])
        else:
            inside.append(item.activation[item.region])
            outside.append(item.activation[item.tissue & ~item.truth])
    return {
        "healthy samples": healthy,
        "disease samples": unseen,
        "disease samples, disease by truth": inside,
        "disease samples, other tissue": outside,
    }


def _counts(parts: Sequence[NDArray[np.float32]], vmax: float) -> NDArray[np.int64]:
    values = np.concatenate([np.empty(0, np.float32), *parts])
    # Brought into the last bin: np.histogram drops values beyond it, and shares would not add up to one.
    return np.histogram(np.minimum(values, vmax), bins=BINS, range=(0, vmax))[0]


def tiles_of(
    maps: Sequence[SampleMap], threshold: Threshold, thumbnails: Mapping[str, RGB], vmax: float | None = None
) -> list[Tile]:
    """Samples with their pictures, for a gallery.

    Args:
        maps: The samples that are shown.
        threshold: Above which a pixel counts as disease.
        thumbnails: By sample name, where there are any.
        vmax: Activation with the brightest colour; None: by these samples.
    """
    vmax, tiles = colour_vmax(maps, threshold) if vmax is None else vmax, []
    for item in maps:
        marked = threshold.apply(item.activation, item.tissue)
        pictures = {
            "activation": paint_activation(item.activation, item.tissue, vmax),
            "thresholded": paint_mask(marked, item.tissue),
        }
        if (thumbnail := thumbnails.get(item.info.name)) is not None:
            pictures = {"thumbnail": as_rgb(thumbnail)} | pictures
        if item.truth is not None:
            pictures["truth"] = paint_mask(item.region, item.tissue)
        tiles.append(Tile(item.info.name, caption(item, threshold), pictures))
    return tiles


def colour_vmax(maps: Sequence[SampleMap], threshold: Threshold) -> float:
    """The activation with the brightest colour; never below twice the threshold, so that what is marked is seen."""
    return vmax_of((item.activation[item.tissue] for item in maps), min(2 * threshold.value, 1.0))


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


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the samples, evenly spaced, first and last among them: nobody picks them by hand."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in places]


def chosen(maps: Sequence[SampleMap], threshold: Threshold, per_class: int = 3) -> list[SampleMap]:
    """Best, middle and worst samples of each class."""
    order = ranked(maps, threshold)
    return [item for label in (1, 0) for item in spread([m for m in order if m.info.label == label], per_class)]
