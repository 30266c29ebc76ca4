"""Samples as rows of small pictures: thumbnail, activation, thresholded, truth (the paper's Figures 3 and S2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from compseg.plots.overlay import DISEASE_RGB, RGB, outline
from compseg.plots.style import DISEASE, as_text, empty_figure, styled
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


def paint_mask(mask: Mask, tissue: Mask, colour: tuple[int, int, int] = DISEASE_RGB) -> RGB:
    """`(H, W, 3)` uint8: disease in colour, other tissue and background in two greys."""
    picture = np.where(tissue[..., None], TISSUE_RGB, BACKGROUND_RGB)
    picture[mask] = colour
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
    size = (1.35 * len(samples), 1.65 * len(titles)) if across else (1.5 * len(titles) + 0.4, 1.72 * len(samples))
    figure = empty_figure(*size)
    # One plot with a picture in each cell of a grid: a plot for each picture takes three times as long.
    axes = figure.subplots()
    axes.set_axis_off()
    step = 1.04 if across else 1.15  # cells are 1 wide; in rows a line of text is between them
    for number, sample in enumerate(samples):
        cells = [
            (number * 1.04, kind * step) if across else (kind * 1.04, number * step) for kind in range(len(titles))
        ]
        for (x, y), kind in zip(cells, titles, strict=True):
            if kind in sample.pictures:
                _show(axes, sample.pictures[kind], x, y)
        _label(axes, cells, sample, across)
    for place, kind in enumerate([] if across else titles):
        axes.text(place * 1.04, -0.04, kind, fontsize=9.5, va="bottom")
    last_x, last_y = cells[-1]
    axes.set(xlim=(-0.02 if across else -0.16, last_x + 1.02), ylim=(last_y + 1.16, -0.16))
    for text in axes.texts:
        text.set_in_layout(False)  # the limits leave room for it, and a long one must not push pictures away
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def _show(axes: Axes, picture: RGB, x: float, y: float) -> None:
    """A picture in the middle of the cell whose upper left corner is (x, y)."""
    height, width = (side / max(picture.shape[:2]) for side in picture.shape[:2])
    left, top = x + (1 - width) / 2, y + (1 - height) / 2
    # Nearest, so that no colour appears which is no pixel's.
    axes.imshow(picture, interpolation="nearest", extent=(left, left + width, top + height, top))


def _label(axes: Axes, cells: Sequence[tuple[float, float]], sample: Tile, across: bool) -> None:
    """The sample's name before the first of its cells, and its caption below."""
    (x, y), name, caption = cells[0], as_text(sample.name, 32), as_text(sample.caption)
    if across:
        axes.text(x, y - 0.04, name, fontsize=7, va="bottom")
        axes.text(x + 0.5, cells[-1][1] + 1.03, caption, fontsize=7, va="top", ha="center")
    else:
        axes.text(x - 0.04, y + 0.5, name, fontsize=8, rotation=90, va="center", ha="right")
        axes.text(cells[len(cells) // 2][0] + 0.5, y + 1.02, caption, fontsize=8, va="top", ha="center")


@styled
def circles(values: NDArray[np.floating], marks: Sequence[tuple[str, float, float, float]], title: str) -> Figure:
    """Circles on a map, with their names, to look whether they are in the right places.

    Args:
        values: `(h, w)`.
        marks: Name, row and column of the centre, and radius of each, in pixels of the map.
        title: Of the picture.
    """
    height, width = values.shape
    figure = empty_figure(9, max(2.0, 9 * height / width))
    axes = figure.subplots()
    low, high = np.percentile(values, [1, 99])
    axes.imshow(values, cmap="gray", vmin=low, vmax=high)
    for name, row, column, radius in marks:
        axes.add_patch(Circle((column, row), radius, fill=False, edgecolor=DISEASE))
        axes.text(column, row, as_text(name), color=DISEASE, ha="center", va="center")
    axes.set_axis_off()
    axes.set_title(as_text(title))
    return figure
