"""What napari opens: a folder of maps or a cohort as layers. Found by `napari.yaml`; napari itself is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compseg.cohort import Cohort
from compseg.errors import require
from compseg.exports.stored import maps_in
from compseg.inference.outputs import RECORD

Layer = tuple[Any, dict[str, Any], str]
Read = Callable[[Any], list[Layer]]


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
    items = maps_in(folder, None, None, None)
    for place, item in enumerate(items):
        size = {} if item.pixel is None else {"scale": [item.pixel.edge] * 2, "units": [item.pixel.unit] * 2}
        style = {**size, "visible": not place, "metadata": {"threshold": item.threshold}}
        activation = np.load(item.path, mmap_mode="r")
        yield activation, {**style, "name": item.name, "colormap": "magma", "contrast_limits": (0, 1)}, "image"
        yield (activation > item.threshold).astype(np.uint8), {**style, "name": f"{item.name}: marked"}, "labels"
        if item.spread is not None:
            style |= {"visible": False, "name": f"{item.name}: spread", "colormap": "viridis"}
            yield np.load(item.spread, mmap_mode="r"), style, "image"


def _cohort_layers(folder: Path) -> Iterator[Layer]:
    cohort = Cohort.open(folder)
    require(len(cohort.infos) > 0, f"{folder}: has no samples")
    for place, info in enumerate(cohort.infos):
        style = {"visible": not place, "metadata": {"label": info.label, "group": info.group}}
        # Channels first: napari's slider then goes through the spectrum.
        yield np.moveaxis(cohort.image(info.name), -1, 0), {**style, "name": info.name}, "image"
        for part in (cohort.tissue(info.name), cohort.truth(info.name)):
            if part is not None:
                yield part.astype(np.uint8), {**style, "visible": False, "name": f"{info.name}: mask"}, "labels"
