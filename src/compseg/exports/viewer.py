"""What napari opens: a folder of maps or a cohort as layers. Found by `napari.yaml`; napari itself is not imported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from compseg.cohort import Cohort
from compseg.errors import require
from compseg.exports.stored import PixelSize, maps_in, size_in_cohort
from compseg.file_names import printable
from compseg.inference.outputs import RECORD

LOG = logging.getLogger("compseg")
SHOWN = 40  # samples of three layers each: napari took minutes for 170
Layer = tuple[Any, dict[str, Any], str]
Read = Callable[[Any], list[Layer]]
Item = TypeVar("Item")


def reader_of(path: str | list[str]) -> Read | None:
    """What reads a folder: of maps (`predict`, `evaluate`, a run) or a cohort; None for anything else.

    Args:
        path: As napari gives it; of several folders nothing is read.
    """
    if not isinstance(path, str) or not (folder := Path(path)).is_dir():
        return None
    if any((folder / name).is_file() for name in (RECORD, "samples.csv")):
        return lambda _: list(_map_layers(folder))
    return (lambda _: list(_cohort_layers(folder))) if (folder / "zarr.json").is_file() else None


def _map_layers(folder: Path) -> Iterator[Layer]:
    for place, item in enumerate(_first(maps_in(folder, None, None, None), folder)):
        style = {**_scale(item.pixel), "visible": not place, "metadata": {"threshold": item.threshold}}
        activation, called = np.load(item.path, mmap_mode="r"), printable(item.name)
        yield activation, {**style, "name": called, "colormap": "magma", "contrast_limits": (0, 1)}, "image"
        yield (activation > item.threshold).astype(np.uint8), {**style, "name": f"{called}: marked"}, "labels"
        if item.spread is not None:
            style |= {"visible": False, "name": f"{called}: spread", "colormap": "viridis"}
            yield np.load(item.spread, mmap_mode="r"), style, "image"


def _cohort_layers(folder: Path) -> Iterator[Layer]:
    cohort = Cohort.open(folder)
    require(len(cohort.infos) > 0, f"{folder}: has no samples")
    pixel = size_in_cohort(str(folder))
    for place, info in enumerate(_first(cohort.infos, folder)):
        style = {"visible": not place, "metadata": {"label": info.label, "group": info.group}}
        # Channels first: napari's slider then goes through the spectrum.
        image, called = np.moveaxis(cohort.image(info.name), -1, 0), printable(info.name)
        yield image, {**style, **_scale(pixel, channels=True), "name": called}, "image"
        for name, part in (("tissue", cohort.tissue(info.name)), ("truth", cohort.truth(info.name))):
            if part is not None:
                hidden = {**style, **_scale(pixel), "visible": False, "name": f"{called}: {name}"}
                yield part.astype(np.uint8), hidden, "labels"


def _scale(pixel: PixelSize | None, channels: bool = False) -> dict[str, Any]:
    """How large a pixel is, so that maps lie on their images."""
    if pixel is None:
        return {}
    return {"scale": [1.0] * channels + [pixel.edge] * 2, "units": ["pixel"] * channels + [pixel.unit] * 2}


def _first(items: Sequence[Item], folder: Path) -> Sequence[Item]:
    """As many as napari can show, and a word where there are more."""
    if len(items) > SHOWN:
        LOG.warning("%s: napari shows the first %d of %d samples", folder, SHOWN, len(items))
    return items[:SHOWN]
