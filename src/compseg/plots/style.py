"""How every figure of the project looks, and how a figure becomes pixels or a file; no pyplot, so no state."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from compseg.file_names import printable
from compseg.plots.overlay import RGB

# Vermilion and blue of Okabe and Ito's palette: apart for colour-blind readers and in grey print.
DISEASE, HEALTHY, OTHER, INK, FAINT = "#D55E00", "#0072B2", "#56708A", "#222222", "#B9BEC4"
CLASS_COLOURS = {"disease": DISEASE, "healthy": HEALTHY}
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
    # Letters as outlines: the page must look alike where a font is missing.
    "svg.fonttype": "path",
}

styled = matplotlib.rc_context(STYLE)


def as_text(name: str, most: int = 60) -> str:
    """What somebody has called something, as matplotlib shows it: in one line of at most `most` characters.

    Between two dollars it would read a formula, and end the run over one that it cannot read.
    """
    line = printable(name)
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return line.replace("$", r"\$")


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def pixels(figure: Figure) -> RGB:
    """A figure as `(h, w, 3)` uint8."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    # Copied, because the buffer is the canvas's own.
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def file_of(figure: Figure, kind: str = "png", dpi: int = 160) -> bytes:
    """A figure as the content of a `png` or `svg` file, without the date."""
    content = io.BytesIO()
    figure.dpi = dpi
    canvas: Any = (FigureCanvasSVG if kind == "svg" else FigureCanvasAgg)(figure)
    # Not `savefig`, which draws twice, though the layout is found in the first drawing.
    getattr(canvas, f"print_{kind}")(content, metadata={"Date": None} if kind == "svg" else None)
    figure.set_layout_engine("none")  # kept for the other kind of file: to find it takes longer than to draw
    return content.getvalue()
