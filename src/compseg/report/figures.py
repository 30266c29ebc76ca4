"""The figures of the report, one function each, on matplotlib's object interface alone: no state, no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.evaluation.curves import curves_of
from compseg.evaluation.metrics import area_roc, labels_of, with_disease_truth
from compseg.evaluation.sample_map import SampleMap
from compseg.inference.threshold import Threshold
from compseg.plots.overlay import RGB
from compseg.plots.style import DISEASE, FAINT, HEALTHY, INK, OTHER, empty_figure, styled
from compseg.report.panels import TITLES, caption, colour_ceiling, panels
from compseg.samples import Channels

BINS = 50
SAMPLED = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spectra:
    """Pixel spectra of two tissue components.

    Attributes:
        disease: `(n, C)`.
        other: `(m, C)`.
        channels: The channel axis.
        quantity: What the values are, for the axis label.
        names: What the two components are called.
    """

    disease: NDArray[np.floating]
    other: NDArray[np.floating]
    channels: Channels
    quantity: str = "signal, as stored"
    names: tuple[str, str] = ("disease", "other tissue")


@styled
def roc(maps: Sequence[SampleMap], threshold: Threshold) -> Figure:
    """ROC over samples by area fraction (Figure S3); says so where only one class is present."""
    figure = empty_figure(4.6, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="chance")
    if curve := area_roc(maps, threshold):
        axes.plot(
            curve.false_positive_rate, curve.true_positive_rate, color=INK, label=f"area fraction, AUC {curve.auc:.3f}"
        )
    disease = int(labels_of(maps).sum())
    axes.set(
        xlabel="false positive rate (healthy samples called disease)",
        ylabel="true positive rate (disease samples found)",
        title=f"{disease} disease and {len(maps) - disease} healthy samples",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="lower right")
    return figure


@styled
def gallery(maps: Sequence[SampleMap], threshold: Threshold, references: Mapping[str, RGB]) -> Figure:
    """Reference, activation map, thresholded map and truth of each sample, a row a sample (Figures 3 and S2)."""
    ceiling = colour_ceiling(maps, threshold)
    rows = [panels(item, threshold, references.get(item.info.name), ceiling) for item in maps]
    titles = [title for title in TITLES if any(title in row for row in rows)]
    figure = empty_figure(1.5 * len(titles) + 0.4, 1.72 * len(rows))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for axes_row, row, item in zip(grid, rows, maps, strict=True):
        for axes, title in zip(axes_row, titles, strict=True):
            _picture(axes, row.get(title))
        axes_row[0].set_ylabel(item.info.name, fontsize=8)
        axes_row[len(titles) // 2].set_xlabel(caption(item, threshold), fontsize=8)
    return figure


def _picture(axes: Axes, picture: RGB | None) -> None:
    if picture is not None:
        axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


@styled
def learning_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss, and the pooled activation x by class, by epoch; that with the lowest validation loss is marked.

    Args:
        history: Columns of `history.csv`; absent columns and NaN are left out.
    """
    figure = empty_figure(9.6, 3.3)
    loss, separation = figure.subplots(1, 2)
    for key, style, colour in (("train/loss", "--", OTHER), ("val/loss", "-", INK)):
        _curve(loss, history, key, key.split("/")[0], linestyle=style, color=colour)
    for name, colour in (("disease", DISEASE), ("healthy", HEALTHY)):
        for split, style in (("train", "--"), ("val", "-")):
            _curve(separation, history, f"{split}/x_{name}", f"{name}, {split}", linestyle=style, color=colour)
    loss.set(title="loss", xlabel="epoch", ylabel="loss")
    separation.set(title="separation of the classes", xlabel="epoch", ylabel="pooled activation x")
    best = best_epoch(history)
    for axes in (loss, separation):
        if best is not None:
            label = f"lowest validation loss, epoch {best:g}" if axes is loss else None
            axes.axvline(best, color=FAINT, linewidth=1, zorder=0, label=label)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _curve(axes: Axes, history: Mapping[str, Sequence[float]], key: str, label: str, **look: Any) -> None:
    values = np.asarray(history.get(key, ()), dtype=np.float64)
    defined = np.isfinite(values)
    if defined.any():
        epochs = np.asarray(history["epoch"], dtype=np.float64)
        axes.plot(epochs[defined], values[defined], label=label, **look)


def best_epoch(history: Mapping[str, Sequence[float]]) -> float | None:
    """The epoch with the lowest validation loss, or None where there is none."""
    losses = np.asarray(history.get("val/loss", ()), dtype=np.float64)
    return float(history["epoch"][int(np.nanargmin(losses))]) if np.isfinite(losses).any() else None


@styled
def threshold_curves(maps: Sequence[SampleMap], threshold: Threshold) -> Figure:
    """Marked area of each class and, with truth, the Dice scores of the disease samples, against the threshold."""
    figure = empty_figure(4.8, 4.0)
    axes = figure.subplots()
    curves, labels = curves_of(maps), labels_of(maps)
    if judged := with_disease_truth(maps):
        of_judged = curves_of(judged)
        axes.plot(of_judged.levels, of_judged.dice.T, color=FAINT, linewidth=0.6)
        axes.plot(of_judged.levels, of_judged.dice.mean(0), color=INK, label="mean Dice (grey: each sample)")
    for label, name, colour in ((1, "disease", DISEASE), (0, "healthy", HEALTHY)):
        if (members := labels == label).any():
            marked = curves.fractions[members].mean(0)
            axes.plot(curves.levels, marked, color=colour, linestyle=":", label=f"marked area, {name} samples")
    _mark_threshold(axes, threshold)
    axes.set(
        xlabel="activation threshold",
        ylabel="Dice, or fraction of tissue" if judged else "fraction of tissue",
        title="what another threshold would give",
        xlim=(0, colour_ceiling(maps, threshold)),
        ylim=(0, 1.02),
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _mark_threshold(axes: Axes, threshold: Threshold) -> None:
    axes.axvspan(threshold.low, threshold.high, color="#EEE8DC", linewidth=0, zorder=0)
    axes.axvline(threshold.value, color="#8A7A55", linewidth=1, label=f"threshold {threshold.value:.3g}")


@styled
def activation_histogram(maps: Sequence[SampleMap], threshold: Threshold) -> Figure:
    """How activations are distributed in healthy and in disease samples, these split by the truth if there is one."""
    figure = empty_figure(4.8, 4.0)
    axes = figure.subplots()
    ceiling = colour_ceiling(maps, threshold)
    for name, values, look in _activation_groups(maps):
        if values.size:
            share = np.histogram(np.minimum(values, ceiling), bins=BINS, range=(0, ceiling))[0] / values.size
            axes.stairs(share, np.linspace(0, ceiling, BINS + 1), label=name, linewidth=1.5, baseline=None, **look)
    _mark_threshold(axes, threshold)
    axes.set(
        xlabel="activation a",
        ylabel=f"share of tissue pixels in a bin of {ceiling / BINS:.2g}",
        title="distribution of activations",
        yscale="log",
        xlim=(0, ceiling),
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _activation_groups(maps: Sequence[SampleMap]) -> list[tuple[str, NDArray[np.float32], dict[str, Any]]]:
    healthy = [m.activation[m.tissue] for m in maps if m.info.label == 0]
    unseen = [m.activation[m.tissue] for m in maps if m.info.label == 1 and m.truth is None]
    inside = [m.activation[m.tissue & m.truth] for m in maps if m.info.label == 1 and m.truth is not None]
    outside = [m.activation[m.tissue & ~m.truth] for m in maps if m.info.label == 1 and m.truth is not None]
    return [
        ("healthy samples", _joined(healthy), {"color": HEALTHY}),
        ("disease samples", _joined(unseen), {"color": DISEASE}),
        ("disease samples, disease by truth", _joined(inside), {"color": DISEASE}),
        ("disease samples, other tissue", _joined(outside), {"color": DISEASE, "linestyle": ":"}),
    ]


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


@styled
def group_activation(maps: Sequence[SampleMap]) -> Figure:
    """Pooled activation x of each sample by group.

    Healthy samples of one slide or array that lie higher than those of another betray a batch effect.
    """
    groups = sorted({item.info.group for item in maps})
    figure = empty_figure(max(4.6, 0.7 * len(groups) + 2), 4.0)
    axes = figure.subplots()
    for label, name, colour, side in ((0, "healthy", HEALTHY, -0.14), (1, "disease", DISEASE, 0.14)):
        members = [item for item in maps if item.info.label == label]
        place = np.array([groups.index(item.info.group) for item in members], dtype=np.float64)
        # Even steps by rank, not noise, keep points apart and the figure the same each time.
        nudge = side + 0.1 * ((np.arange(len(members)) * 0.618) % 1 - 0.5)
        axes.plot(
            place + nudge, [item.pooled for item in members], "o", markersize=4, alpha=0.7, color=colour, label=name
        )
    axes.set(
        xlabel="group",
        ylabel="pooled activation x",
        title="activation of each sample, by group",
        xticks=range(len(groups)),
        xlim=(-0.6, len(groups) - 0.4),
    )
    axes.set_xticklabels([name or "(no group)" for name in groups], rotation=30 if len(groups) > 5 else 0)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


@styled
def spectra(given: Spectra, seed: int = 0) -> Figure:
    """Mean spectra, 100 sampled spectra of each component, and the difference of the means (Figure S1)."""
    figure = empty_figure(9.6, 6.6)
    means, sampled, difference = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    axis = np.array(given.channels.values or range(given.channels.count), dtype=np.float64)
    drawn = []
    for values, colour, name in zip((given.disease, given.other), (DISEASE, HEALTHY), given.names, strict=True):
        means.plot(axis, values.mean(0), color=colour, label=f"{name} ({len(values)} spectra)")
        drawn.append(_sample(values, seed))
        lines = sampled.plot(axis, drawn[-1].T, color=colour, linewidth=0.4, alpha=0.5, rasterized=True)
        for i, line in enumerate(lines):  # the two components in turn, so that neither hides the other
            line.set_zorder(2 + i / SAMPLED)
    difference.axhline(0, color=FAINT, linewidth=1)
    difference.plot(axis, given.disease.mean(0) - given.other.mean(0), color=INK)
    means.set(title="mean spectra", ylabel=given.quantity)
    means.legend()
    sampled.set(title=f"{len(drawn[0])} and {len(drawn[1])} spectra drawn at random", ylabel=given.quantity)
    difference.set(title=f"difference of the means, {given.names[0]} less {given.names[1]}", ylabel="difference")
    _channel_axis(difference, given.channels, axis)
    return figure


def _sample(values: NDArray[np.floating], seed: int) -> NDArray[np.floating]:
    picked = np.random.default_rng(seed).permutation(len(values))[:SAMPLED]
    return values[picked]


def _channel_axis(axes: Axes, channels: Channels, axis: NDArray[np.float64]) -> None:
    unit = {"cm-1": "cm⁻¹", "cm^-1": "cm⁻¹", "1/cm": "cm⁻¹"}.get(channels.unit, channels.unit)
    if not channels.spectral:
        axes.set_xlabel("channel")
        if channels.names:
            axes.set_xticks(axis, channels.names)
        return
    wavenumber = unit == "cm⁻¹"
    quantity = "wavenumber" if wavenumber else "wavelength" if unit in ("nm", "um", "µm") else "position"
    axes.set_xlabel(f"{quantity} ({unit})" if unit else quantity)
    # Infrared spectra are read from high wavenumbers to low.
    axes.set_xlim((axis.max(), axis.min()) if wavenumber else (axis.min(), axis.max()))
