"""Curves, histograms and spectra, one function each: the same for the previews of an epoch and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.axes import unit_of
from compseg.plots.style import CLASS_COLOURS, DISEASE, FAINT, HEALTHY, INK, OTHER, as_text, empty_figure, styled
from compseg.samples import Channels

SAMPLED = 100  # spectra of each component

Floats = NDArray[np.float64]
Interval = tuple[float, float, float]  # a threshold, and the low and the high end of its interval


class Counts(NamedTuple):
    """A histogram's bars: counts `(B,)` in even bins, and how they look."""

    name: str
    counts: NDArray[Any]
    colour: str
    linestyle: str = "-"


@dataclass(frozen=True)
class Spectra:
    """Pixel spectra of two tissue components; a single spectrum of each is a mean already.

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
def roc(curves: Mapping[str, tuple[Floats, Floats]], title: str) -> Figure:
    """ROC over samples.

    Args:
        curves: False and true positive rates `(K,)` by the words of the legend, the most important last; without any
            the diagonal of chance is drawn alone.
        title: Above it.
    """
    figure = empty_figure(4.6, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="chance")
    for place, (name, rates) in enumerate(curves.items(), 1):
        axes.plot(*rates, color=INK if place == len(curves) else OTHER, label=name)
    axes.set(
        xlabel="false positive rate (healthy samples called disease)",
        ylabel="true positive rate (disease samples found)",
        title=title,
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="lower right")
    return figure


@styled
def histogram(groups: Sequence[Counts], title: str, vmax: float = 1.0, threshold: Interval | None = None) -> Figure:
    """How activations are distributed over the tissue of groups of samples; empty groups are not drawn.

    Args:
        groups: Tissue pixels by activation, in as many even bins from 0 to `vmax` each.
        title: Above it.
        vmax: Right end of the axis.
        threshold: Marked where given.
    """
    figure = empty_figure(4.8, 4.0)
    axes = figure.subplots()
    for group in groups:
        if total := group.counts.sum():
            edges = np.linspace(0, vmax, len(group.counts) + 1)
            look: dict[str, Any] = {"color": group.colour, "linestyle": group.linestyle, "label": group.name}
            # No baseline: it would be at 0, which a logarithmic axis does not have.
            axes.stairs(group.counts / total, edges, linewidth=1.5, baseline=None, **look)
    if threshold:
        _mark_threshold(axes, threshold)
    axes.set(
        xlabel="activation a",
        ylabel=f"share of tissue pixels in a bin of {vmax / len(groups[0].counts):.2g}",
        title=title,
        yscale="log",
        xlim=(0, vmax),
    )
    # Below the axes, where it hides no curve.
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def threshold_curves(
    marked: Mapping[str, Floats], levels: Floats, dice: tuple[Floats, Floats] | None, threshold: Interval, vmax: float
) -> Figure:
    """Marked area of each class and, with truth, the Dice scores of the disease samples, against the threshold.

    Args:
        marked: Mean fraction of tissue `(L,)` above each level, by class (`disease`, `healthy`).
        levels: `(L,)` of activation.
        dice: Levels `(L,)` and the Dice `(N, L)` of each sample at them; None without truth.
        threshold: The one in use.
        vmax: Right end of the axis.
    """
    figure = empty_figure(4.8, 4.0)
    axes = figure.subplots()
    if dice:
        axes.plot(dice[0], dice[1].T, color=FAINT, linewidth=0.6)
        axes.plot(dice[0], dice[1].mean(0), color=INK, label="mean Dice (grey: each sample)")
    for name, fractions in marked.items():
        label = f"marked area, {name} samples"
        axes.plot(levels, fractions, color=CLASS_COLOURS[name], linestyle=":", label=label)
    _mark_threshold(axes, threshold)
    axes.set(
        xlabel="activation threshold",
        ylabel="Dice, or fraction of tissue" if dice else "fraction of tissue",
        title="what another threshold would give",
        xlim=(0, vmax),
        ylim=(0, 1.02),
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _mark_threshold(axes: Axes, threshold: Interval) -> None:
    value, low, high = threshold
    axes.axvspan(low, high, color="#EEE8DC", linewidth=0, zorder=0)
    axes.axvline(value, color="#8A7A55", linewidth=1, label=f"threshold {value:.3g}")


@styled
def learning_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss, and the pooled activation x by class, by epoch; that with the lowest validation loss is marked.

    Args:
        history: Columns of `history.csv`; absent columns and NaN are not drawn.
    """
    figure = empty_figure(9.6, 3.3)
    loss, separation = figure.subplots(1, 2)
    for key, style, colour in (("train/loss", "--", OTHER), ("val/loss", "-", INK)):
        _curve(loss, history, key, key.split("/")[0], linestyle=style, color=colour)
    for name, colour in CLASS_COLOURS.items():
        for split, style in (("train", "--"), ("val", "-")):
            _curve(separation, history, f"{split}/x_{name}", f"{name}, {split}", linestyle=style, color=colour)
    loss.set(title="loss", xlabel="epoch", ylabel="loss")
    separation.set(title="separation of the classes", xlabel="epoch", ylabel="pooled activation x")
    best = best_epoch(history)
    for axes in (loss, separation):
        if best is not None:
            label = f"lowest validation loss, epoch {best:g}" if axes is loss else None
            axes.axvline(best, color=FAINT, linewidth=1, zorder=0, label=label)
        # Matplotlib warns of a legend without entries.
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
def activation_by_group(groups: Sequence[str], labels: Sequence[int], x: Sequence[float]) -> Figure:
    """Pooled activation x of each of N samples by group.

    Healthy samples of one slide or array that are more active than those of another betray a batch effect.
    """
    names = sorted(set(groups))
    figure = empty_figure(max(4.6, 0.7 * len(names) + 2), 4.0)
    axes = figure.subplots()
    for label, name, side in ((0, "healthy", -0.14), (1, "disease", 0.14)):
        members = [
            (names.index(group), value) for group, of, value in zip(groups, labels, x, strict=True) if of == label
        ]
        # Even steps by rank, not noise, keep points apart and the picture the same each time.
        nudge = side + 0.1 * ((np.arange(len(members)) * 0.618) % 1 - 0.5)
        place, values = np.array(members, dtype=np.float64).reshape(-1, 2).T
        look: dict[str, Any] = {"markersize": 4, "alpha": 0.7, "color": CLASS_COLOURS[name], "label": name}
        axes.plot(place + nudge, values, "o", **look)
    axes.set(
        xlabel="group",
        ylabel="pooled activation x",
        title="activation of each sample, by group",
        xticks=range(len(names)),
        xlim=(-0.6, len(names) - 0.4),
    )
    axes.set_xticklabels([as_text(name, 32) or "(no group)" for name in names], rotation=30 if len(names) > 5 else 0)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


@styled
def spectra(given: Spectra, title: str = "mean spectra", seed: int = 0) -> Figure:
    """Mean spectra, 100 randomly chosen spectra of each component, and the difference of the means (Figure S1)."""
    components = list(zip((given.disease, given.other), (DISEASE, HEALTHY), given.names, strict=True))
    several = all(len(values) > 1 for values, _, _ in components)
    figure = empty_figure(9.6, 6.6 if several else 4.4)
    means, *sampled, difference = figure.subplots(
        3 if several else 2, 1, sharex=True, height_ratios=[3, 3, 2] if several else [3, 2]
    )
    axis = positions(given.channels)
    for values, colour, name in components:
        count = f" ({len(values)} spectra)" if several else ""
        means.plot(axis, values.mean(0), color=colour, label=f"{name}{count}")
    means.set(title=title, ylabel=given.quantity)
    means.legend()
    for axes in sampled:
        _sampled_spectra(axes, axis, [values for values, _, _ in components], given.quantity, seed)
    difference.axhline(0, color=FAINT, linewidth=1)
    difference.plot(axis, given.disease.mean(0) - given.other.mean(0), color=INK)
    difference.set(title=f"difference of the means, {given.names[0]} less {given.names[1]}", ylabel="difference")
    channel_axis(difference, given.channels, axis)
    return figure


def _sampled_spectra(axes: Axes, axis: Floats, kinds: Sequence[NDArray[np.floating]], quantity: str, seed: int) -> None:
    picked = [values[np.random.default_rng(seed).permutation(len(values))[:SAMPLED]] for values in kinds]
    for values, colour in zip(picked, (DISEASE, HEALTHY), strict=True):
        # Rasterized: a hundred lines of hundreds of points each would make a large SVG.
        lines = axes.plot(axis, values.T, color=colour, linewidth=0.4, alpha=0.5, rasterized=True)
        for i, line in enumerate(lines):  # the two components in turn, so that neither hides the other
            line.set_zorder(2 + i / SAMPLED)
    axes.set(title=f"{len(picked[0])} and {len(picked[1])} spectra chosen at random", ylabel=quantity)


def positions(channels: Channels) -> Floats:
    """Where channels lie on an axis, `(C,)`: their positions, else their numbers."""
    return np.array(channels.values or range(channels.count), dtype=np.float64)


def channel_axis(axes: Axes, channels: Channels, axis: Floats) -> None:
    """Label an axis of channels, in the direction in which it is read."""
    wavenumber = unit_of(channels.unit) == "cm-1"
    unit = "cm⁻¹" if wavenumber else channels.unit
    if not channels.spectral:
        axes.set_xlabel("channel")
        if channels.names:
            axes.set_xticks(axis, [as_text(name) for name in channels.names])
        return
    quantity = "wavenumber" if wavenumber else "wavelength" if unit in ("nm", "um", "µm") else "position"
    axes.set_xlabel(f"{quantity} ({as_text(unit)})" if unit else quantity)
    # Infrared spectra are read from high wavenumbers to low.
    axes.set_xlim((axis.max(), axis.min()) if wavenumber else (axis.min(), axis.max()))
