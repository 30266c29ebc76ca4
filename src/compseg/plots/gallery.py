"""Samples as rows of small pictures: thumbnail, activation, thresholded, truth (the paper's Figures 3 and S2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.plots.overlay import DISEASE_RGB, RGB, outline
from compseg.plots.style import as_text, empty_figure, styled
from compseg.samples import Mask

TITLES = ("thumbnail", "activation", "thresholded", "truth")
COLORMAP = "magma"
BACKGROUND_RGB = np.array((244, 244, 242), dtype=np.uint8)
TISSUE_RGB = np.array((201, 206, 212), dtype=np.uint8)
# Sky blue of Okabe and Ito's palette, which the colours of activations do not have.
TRUTH_RGB = (86, 180, 233)


@dataclass(frozen=True)
class Tile:
    """A sample of a gallery.

    Attributes:
        name: Of the sample.
        caption: Below its pictures.
        pictures: `(h, w, 3)` uint8 by title, some of `TITLES`.
    """

    name: str
    caption: str
    pictures: Mapping[str, RGB]


def paint_activation(activation: NDArray[np.float32], tissue: Mask, vmax: float, outlined: Mask | None = None) -> RGB:
    """`(H, W, 3)` uint8: the activation in colour on tissue, from 0 to `vmax`, and a region's outline."""
    colours = matplotlib.colormaps[COLORMAP](np.clip(activation / vmax, 0, 1), bytes=True)[..., :3]
    picture = np.where(tissue[..., None], colours, BACKGROUND_RGB)
    if outlined is not None:
        picture[outline(outlined & tissue)] = TRUTH_RGB
    return picture


def paint_mask(mask: Mask, tissue: Mask) -> RGB:
    """`(H, W, 3)` uint8: disease in colour, other tissue and background in two greys."""
    picture = np.where(tissue[..., None], TISSUE_RGB, BACKGROUND_RGB)
    picture[mask] = DISEASE_RGB
    return picture


def vmax_of(activations: Iterable[NDArray[np.float32]], least: float) -> float:
    """The activation with the brightest colour: 1, or less for faint maps.

    Args:
        activations: `(n,)` those on the tissue of each sample.
        least: The lowest answer, so that the noise of an empty map stays dark.
    """
    # Not the maximum: one bright pixel would leave all others dark.
    highest = [float(np.percentile(values, 99)) for values in activations if values.size]
    return float(np.clip(np.nan_to_num(max(highest, default=1.0), nan=1.0), least, 1.0)) or 1.0


@styled
def gallery(samples: Sequence[Tile], title: str = "", across: bool = False) -> Figure:
    """Pictures of each sample in a row; `across`: in a column, for many samples with few kinds of picture."""
    titles = [title for title in TITLES if any(title in sample.pictures for sample in samples)]
    if across:
        figure = empty_figure(1.35 * len(samples), 1.65 * len(titles))
        grid = figure.subplots(len(titles), len(samples), squeeze=False).T
    else:
        figure = empty_figure(1.5 * len(titles) + 0.4, 1.72 * len(samples))
        grid = figure.subplots(len(samples), len(titles), squeeze=False)
    for places, sample in zip(grid, samples, strict=True):
        for axes, kind in zip(places, titles, strict=True):
            if kind in sample.pictures:
                # Nearest, so that no colour appears which is no pixel's.
                axes.imshow(sample.pictures[kind], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        if across:
            places[0].set_title(as_text(sample.name, 32), fontsize=7)
            places[-1].set_xlabel(as_text(sample.caption), fontsize=7)
        else:
            places[0].set_ylabel(as_text(sample.name, 32), fontsize=8)
            places[len(titles) // 2].set_xlabel(as_text(sample.caption), fontsize=8)
    if not across:
        for axes, kind in zip(grid[0], titles, strict=True):
            axes.set_title(kind)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure
