"""The pictures of an epoch: maps with the truth drawn over them, histograms, ROC and spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torchmetrics.functional.classification import binary_roc

from compseg.monitor.diagnosis import BINS, Diagnosis, Floats, Pooled
from compseg.monitor.shown import Shown
from compseg.plots.overlay import RGB, as_rgb, outline
from compseg.plots.style import DISEASE, FAINT, HEALTHY, INK, OTHER, empty_figure, paint_activation, styled
from compseg.samples import Channels

# Sky blue of Okabe and Ito's palette, which the colours of activations do not have.
TRUTH_RGB = (86, 180, 233)
FAINTEST = 0.05  # activation that gets the brightest colour at least, so that noise of an empty map stays dark


def draw(shown: Sequence[Shown], diagnosis: Diagnosis, channels: Channels, epoch: int) -> dict[str, RGB]:
    """All pictures of an epoch by name, `(h, w, 3)` uint8; spectra only of a spectral axis."""
    figures = {
        "gallery": gallery(shown, epoch),
        "activations": histogram(diagnosis, epoch),
        "roc": roc(diagnosis, epoch),
    }
    if channels.spectral and (means := mean_spectra(shown)):
        figures["spectra"] = spectra(*means, channels, epoch)
    return {name: pixels(figure) for name, figure in figures.items()}


def pixels(figure: Figure) -> RGB:
    """A figure as `(h, w, 3)` uint8."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@styled
def gallery(shown: Sequence[Shown], epoch: int) -> Figure:
    """Picture above, activation with the truth's outline below, a column a sample."""
    ceiling = _ceiling(shown)
    figure = empty_figure(1.35 * len(shown), 3.3)
    figure.suptitle(f"epoch {epoch}: activation from 0 to {ceiling:.2g}, truth outlined in blue", fontsize=9)
    grid = figure.subplots(2, len(shown), squeeze=False)
    for sample, upper, lower in zip(shown, grid[0], grid[1], strict=True):
        upper.imshow(as_rgb(sample.picture), interpolation="nearest")
        lower.imshow(painted(sample, ceiling), interpolation="nearest")
        upper.set_title(sample.info.name, fontsize=7)
        lower.set_xlabel(f"{'disease' if sample.info.label else 'healthy'}, x {sample.x:.3f}", fontsize=7)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def painted(sample: Shown, ceiling: float) -> RGB:
    """`(H, W, 3)` the activation in colour on tissue, with the truth's outline."""
    picture = paint_activation(sample.activation, sample.tissue, ceiling)
    if sample.truth is not None:
        picture[outline(sample.truth & sample.tissue)] = TRUTH_RGB
    return picture


def _ceiling(shown: Sequence[Shown]) -> float:
    highest = [np.percentile(sample.activation[sample.tissue], 99) for sample in shown if sample.tissue.any()]
    return float(np.clip(np.nan_to_num(max(highest, default=1.0), nan=1.0), FAINTEST, 1.0))


@styled
def histogram(d: Diagnosis, epoch: int) -> Figure:
    """How activations are distributed over the validation tissue of each class."""
    figure = empty_figure(4.4, 3.3)
    axes = figure.subplots()
    edges = np.linspace(0, 1, BINS + 1)
    for share, name, colour in zip(d.shares, ("healthy", "disease"), (HEALTHY, DISEASE), strict=True):
        axes.stairs(share, edges, color=colour, label=f"{name} samples", linewidth=1.5, baseline=None)
    axes.set(
        title=f"epoch {epoch}: activations on tissue",
        xlabel="activation a",
        ylabel=f"share of tissue in a bin of {1 / BINS:g}",
        yscale="log",
        xlim=(0, 1),
    )
    axes.legend()
    return figure


@styled
def roc(d: Diagnosis, epoch: int) -> Figure:
    """ROC over samples by x: no threshold is needed for it."""
    figure = empty_figure(3.6, 3.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    for pooled, name, colour in ((d.train, "training", OTHER), (d.val, "validation", INK)):
        if np.isfinite(pooled.auc):
            axes.plot(*_roc(pooled), label=f"{name}, AUC {pooled.auc:.3f}", color=colour)
    axes.set(
        title=f"epoch {epoch}: samples told apart by x",
        xlabel="false positive rate",
        ylabel="true positive rate",
        aspect="equal",
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return figure


def _roc(pooled: Pooled) -> tuple[Floats, Floats]:
    fpr, tpr, _ = binary_roc(torch.from_numpy(pooled.ranks), torch.from_numpy(pooled.labels))
    return fpr.numpy(), tpr.numpy()


def mean_spectra(shown: Sequence[Shown]) -> tuple[Floats, Floats] | None:
    """Mean spectra `(C,)` of the disease samples' tissue, weighted by a and by 1 - a: no threshold is needed for them.

    None without disease samples, or where all of their tissue is marked, or none.
    """
    diseased = [sample for sample in shown if sample.info.label]
    if not diseased:
        return None
    weights = np.concatenate([sample.activation[sample.tissue] for sample in diseased]).astype(np.float64)
    values = np.concatenate([sample.image[sample.tissue] for sample in diseased]).astype(np.float64)
    marked, unmarked = weights.sum(), (1 - weights).sum()
    if not (marked > 0 and unmarked > 0):
        return None
    return weights @ values / marked, (1 - weights) @ values / unmarked


@styled
def spectra(marked: Floats, unmarked: Floats, channels: Channels, epoch: int) -> Figure:
    """Mean spectra `(C,)` of marked and of unmarked tissue of disease samples, and their difference."""
    figure = empty_figure(4.8, 3.5)
    axes, difference = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    axis = np.array(channels.values, dtype=np.float64)
    axes.plot(axis, marked, color=DISEASE, label="tissue weighted by a")
    axes.plot(axis, unmarked, color=HEALTHY, label="tissue weighted by 1 - a")
    axes.set(
        title=f"epoch {epoch}: spectra of what is marked and what is not",
        ylabel="signal, as stored",
        xlim=(axis[0], axis[-1]),
    )
    axes.legend()
    difference.axhline(0, color=FAINT, linewidth=1)
    difference.plot(axis, marked - unmarked, color=INK)
    difference.set(xlabel=f"channel ({channels.unit})" if channels.unit else "channel", ylabel="difference")
    return figure
