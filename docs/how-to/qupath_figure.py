"""The picture of the steps in QuPath: `python docs/how-to/qupath_figure.py RUN`. A sketch, not of QuPath's window.

Picture, regions and measurements are those of a run's export; names of menus are those of QuPath's list of commands.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from export_figure import outlines
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from compseg.cohort import Cohort
from compseg.exports.maps import export_maps
from compseg.plots.overlay import as_picture
from compseg.plots.style import empty_figure, file_of, styled
from compseg.run_folder import load_config

MENU = ("Open...", "Save", "Import objects from file", "Export objects as GeoJSON", "Quit")
STEPS = (
    "1  File > Open...\nthe image of the sample",
    "2  File > Import objects from file\nNAME.geojson",
    "3  each region is an annotation\nof the class class_name",
    "4  Measure >\nShow annotation measurements",
)


def menu(axes: Axes) -> None:
    """A menu with the entry that is meant marked, over the left upper corner."""
    for place, entry in enumerate(MENU):
        meant = entry.startswith("Import")
        corner = (0.03, 0.86 - 0.1 * place)
        ground = {"facecolor": "#0068a3" if meant else "#f4f4f4", "edgecolor": "#c8c8c8", "linewidth": 0.5}
        axes.add_patch(Rectangle(corner, 0.82, 0.1, transform=axes.transAxes, **ground))
        x, y = corner[0] + 0.03, corner[1] + 0.05
        axes.text(x, y, entry, transform=axes.transAxes, va="center", size=7, color="white" if meant else "#222222")


def measurements(axes: Axes, path: Path) -> None:
    """What the largest regions of a GeoJSON file bring along."""
    features = json.loads(path.read_text())["features"]
    rows = sorted((each["properties"]["measurements"] for each in features), key=lambda row: -row["Area px^2"])[:5]
    cells = [[f"{value:.4g}" for value in row.values()] for row in rows]
    table = axes.table(cells, colLabels=[name.replace(" ", "\n") for name in rows[0]], bbox=(0, 0.3, 1, 0.7))
    table.auto_set_font_size(False)
    table.set_fontsize(6)
    for cell in table.get_celld().values():
        cell.set_linewidth(0.4)


@styled
def main(run: Path) -> None:
    cohort = Cohort.open(str(load_config(run).data.path))
    name = next(info.name for info in cohort.split("test") if info.label)
    thumbnail = cohort.thumbnail(name)
    picture = as_picture(cohort.image(name), cohort.channels, cohort.tissue(name)) if thumbnail is None else thumbnail
    height, width = cohort.tissue(name).shape
    figure = empty_figure(10.4, 3.3)
    axes: np.ndarray = figure.subplots(1, 4)
    for each, step in zip(axes, STEPS, strict=True):
        each.set_axis_off()
        each.set_title(step, fontsize=8, loc="left")
    axes[3].set_box_aspect(1)
    for each in axes[:3]:
        each.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    menu(axes[1])
    with tempfile.TemporaryDirectory() as out:
        export_maps(run, "geojson", Path(out), options={"class_name": "tumour"})
        outlines(axes[2], Path(out) / f"{name}.geojson")
        measurements(axes[3], Path(out) / f"{name}.geojson")
    words = "A sketch of the steps, from an exported file, not a screenshot of QuPath."
    figure.text(0.5, 0.02, words, ha="center", size=7)
    Path(__file__).with_name("qupath.png").write_bytes(file_of(figure, dpi=120))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
