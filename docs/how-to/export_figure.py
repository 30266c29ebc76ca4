"""The picture of the page on exports: `python docs/how-to/export_figure.py RUN`, judged with `uncertainty=true`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from matplotlib.axes import Axes
from PIL import Image

from compseg.cohort import Cohort
from compseg.exports.maps import export_maps
from compseg.plots.overlay import as_picture
from compseg.plots.style import empty_figure, file_of, styled
from compseg.run_folder import load_config


def outlines(axes: Axes, path: Path) -> None:
    """The rings of every region of a GeoJSON file."""
    for feature in json.loads(path.read_text())["features"]:
        for ring in feature["geometry"]["coordinates"]:
            # The middle of a pixel is at whole numbers here, its corner in the file.
            axes.plot(*(np.array(ring) - 0.5).T, color="#56b4e9", linewidth=1.2)


@styled
def main(run: Path) -> None:
    cohort = Cohort.open(str(load_config(run).data.path))
    name = next(info.name for info in cohort.split("test") if info.label)
    picture = as_picture(cohort.image(name), cohort.channels, cohort.tissue(name))
    with tempfile.TemporaryDirectory() as out:
        for form in ("ome_tiff", "geojson", "png"):
            export_maps(run, form, Path(out))
        activation, _, spread = tifffile.imread(Path(out) / f"{name}.ome.tiff")
        figure = empty_figure(9.6, 3.4)
        axes = figure.subplots(1, 3)
        axes[0].imshow(activation, cmap="magma", vmin=0, vmax=1)
        outlines(axes[0], Path(out) / f"{name}.geojson")
        axes[1].imshow(spread, cmap="viridis")
        layer = Image.open(Path(out) / f"{name}.png")
        axes[2].imshow(Image.alpha_composite(Image.fromarray(picture).convert("RGBA"), layer))
    titles = ("OME-TIFF: activation; GeoJSON: regions", "OME-TIFF: spread", "PNG, over the sample")
    for each, title in zip(axes, titles, strict=True):
        each.set_axis_off()
        each.set_title(title)
    Path(__file__).with_name("export.png").write_bytes(file_of(figure, dpi=120))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
