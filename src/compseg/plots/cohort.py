"""Pictures of a cohort before anything is learned from it: each sample, and spectra by group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.plots.figures import channel_axis, positions
from compseg.plots.style import FAINT, HEALTHY, INK, as_text, empty_figure, styled
from compseg.samples import Channels, Mask

RANGE = (5, 95)  # percentiles of the spectra that are shown as a band
BINS = 40

Floats = NDArray[np.floating]


@styled
def sample_preview(level: Floats, tissue: Mask, spectra: Floats, channels: Channels, quantity: str) -> Figure:
    """A sample at a glance: its level with the tissue outlined, the level's histogram, mean spectrum with its range.

    Args:
        level: `(H, W)`.
        tissue: `(H, W)` bool.
        spectra: Of tissue pixels, `(n, C)`.
        channels: Their axis.
        quantity: What the level is, in words.
    """
    figure = empty_figure(8.4, 2.3)
    picture, histogram, means = figure.subplots(1, 3, width_ratios=[1, 1, 2])
    low, high = np.nanpercentile(level, [1, 99])
    picture.imshow(level, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
    if 0 < tissue.sum() < tissue.size:
        picture.contour(tissue, levels=[0.5], colors=HEALTHY, linewidths=0.8)
    picture.set(xticks=[], yticks=[], title=quantity)
    edges = np.histogram_bin_edges(level[np.isfinite(level)], BINS)
    histogram.hist(level.ravel(), bins=list(edges), color=FAINT)
    histogram.hist(level[tissue], bins=list(edges), color=HEALTHY)
    histogram.set(title="tissue and all", yticks=[])
    axis = positions(channels)
    if len(spectra):
        means.fill_between(axis, *np.percentile(spectra, RANGE, axis=0), color=HEALTHY, alpha=0.25, linewidth=0)
        means.plot(axis, spectra.mean(0), color=INK, linewidth=1.2)
    means.set(title=f"mean of the tissue, and {RANGE[1] - RANGE[0]} % of it")
    channel_axis(means, channels, axis)
    return figure


@styled
def spectra_by_group(means: Mapping[str, Floats], channels: Channels) -> Figure:
    """The mean spectrum of the tissue of each group, `(C,)`, by its name."""
    figure = empty_figure(9.6, 3.6)
    axes = figure.subplots()
    axis = positions(channels)
    for name, values in means.items():
        axes.plot(axis, values, linewidth=1.2, label=as_text(name, 32))
    axes.set(title="mean of the tissue, by group", ylabel="value")
    if len(means) <= 12:
        axes.legend()
    channel_axis(axes, channels, axis)
    return figure
