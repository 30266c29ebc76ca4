"""How every figure of the project looks: colours, type, and maps as pictures."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.plots.overlay import DISEASE_RGB, RGB
from compseg.samples import Mask

# Vermilion and blue of Okabe and Ito's palette: apart for colour-blind readers and in grey print.
DISEASE, HEALTHY, OTHER, INK, FAINT = "#D55E00", "#0072B2", "#56708A", "#222222", "#B9BEC4"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#777777",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
}
COLORMAP = "magma"
BACKGROUND_RGB = np.array((244, 244, 242), dtype=np.uint8)
TISSUE_RGB = np.array((201, 206, 212), dtype=np.uint8)

styled = matplotlib.rc_context(STYLE)


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def paint_activation(activation: NDArray[np.float32], tissue: Mask, ceiling: float) -> RGB:
    """`(H, W, 3)` uint8: the activation in colour on tissue, from 0 to `ceiling`."""
    colours = matplotlib.colormaps[COLORMAP](np.clip(activation / ceiling, 0, 1), bytes=True)[..., :3]
    return np.where(tissue[..., None], colours, BACKGROUND_RGB)


def paint_mask(mask: Mask, tissue: Mask) -> RGB:
    """`(H, W, 3)` uint8: disease in colour, other tissue and background in two greys."""
    picture = np.where(tissue[..., None], TISSUE_RGB, BACKGROUND_RGB)
    picture[mask] = DISEASE_RGB
    return picture
