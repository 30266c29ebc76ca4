"""Maps as OME-TIFF and OME-Zarr: two or three channels, a pyramid, and the size of a pixel where it is known.

Sources: OME-XML of June 2016; the OME-NGFF specification, https://ngff.openmicroscopy.org, 0.4 (Zarr format 2) and 0.5
(Zarr format 3).
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from compseg.errors import require
from compseg.exports.stored import CLASS, ROWS, StoredMap
from compseg.file_names import printable
from compseg.files import atomic_open
from compseg.plots.overlay import DISEASE_RGB

TILE = ROWS  # edge of a tile or chunk, pixels, so that a strip is whole ones
SMALLEST_LEVEL = 512  # pixels: what viewers open at once
VERSIONS: dict[str, Literal[2, 3]] = {"0.5": 3, "0.4": 2}  # of OME-Zarr, and the format of Zarr that each is written in
COLOURS = ("FFFFFF", "".join(f"{part:02X}" for part in DISEASE_RGB), "56B4E9")


def steps_of(shape: tuple[int, int]) -> list[int]:
    """Which row and column each level of a pyramid takes: 1, 2, 4 and so on.

    Pixels are left out and not averaged, so that a mask stays one and every level begins at the same pixel centre.
    """
    steps = [1]
    while max(shape) > SMALLEST_LEVEL * steps[-1]:
        steps.append(2 * steps[-1])
    return steps


def level_shape(item: StoredMap, step: int) -> tuple[int, int, int]:
    """Channels, rows and columns of a level."""
    return len(item.bands(CLASS)), -(-item.shape[0] // step), -(-item.shape[1] // step)


def write_ome_tiff(item: StoredMap, stem: Path, class_name: str = CLASS) -> list[Path]:
    """Write `NAME.ome.tiff`, tiled and compressed, in float32: activation, mask as 0 and 1, spread if known."""
    path, steps = stem.with_name(f"{stem.name}.ome.tiff"), steps_of(item.shape)
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "Name": printable(item.name),
        # Of the map and not at random, so that the same map gives the same bytes.
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"map {item.name!a} {item.threshold}")),
        "Channel": {"Name": [printable(name) for name in item.bands(class_name)]},
    }
    if (pixel := item.pixel) is not None:
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": pixel.edge, f"PhysicalSize{axis}Unit": pixel.symbol}
    # Offsets of 32 bits end at 4 GB, and noise does not compress.
    big = 4 * np.prod(level_shape(item, 1), dtype=float) > 2**31
    with atomic_open(path) as file, tifffile.TiffWriter(file, bigtiff=big, ome=True) as writer:
        for step in steps:
            level = (
                {"subfiletype": 1, "metadata": None}
                if step > 1
                else {"subifds": len(steps) - 1} | {"metadata": metadata}
            )
            writer.write(
                _tiles(item, step),
                shape=level_shape(item, step),
                dtype=np.float32,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                maxworkers=1,
                **level,
            )
    return [path]


def _tiles(item: StoredMap, step: int) -> Iterator[NDArray[np.float32]]:
    for channel in range(len(item.bands(CLASS))):
        for strip in item.strips(step):
            rows = strip.bands[channel]
            for left in range(0, rows.shape[1], TILE):
                yield np.ascontiguousarray(rows[:, left : left + TILE])


def write_ome_zarr(item: StoredMap, stem: Path, class_name: str = CLASS, ome_zarr: str = "0.5") -> list[Path]:
    """Write `NAME.ome.zarr` with the same channels.

    Raises:
        CompsegError: The version is unknown, or the place is taken by something else.
    """
    require(ome_zarr in VERSIONS, f"ome_zarr={ome_zarr}: expected {' or '.join(VERSIONS)}")
    path = stem.with_name(f"{stem.name}.ome.zarr")
    partial = path.with_name(f".{path.name}.partial")
    holds_zarr = any((path / name).is_file() for name in ("zarr.json", ".zgroup"))
    require(holds_zarr or not path.exists(), f"{path}: is no Zarr group; give another out=")
    # Built beside its place and renamed, as files are: no reader finds half an image.
    shutil.rmtree(partial, ignore_errors=True)
    _build(item, partial, class_name, ome_zarr)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    return [path]


def _build(item: StoredMap, path: Path, class_name: str, version: str) -> None:
    zarr_format, steps = VERSIONS[version], steps_of(item.shape)
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=_attributes(item, class_name, version, steps))
    for level, step in enumerate(steps):
        shape = level_shape(item, step)
        array = group.create_array(
            str(level),
            shape=shape,
            dtype=np.float32,
            chunks=(1, TILE, TILE),
            # The specification asks for a folder a dimension; names are unknown to Zarr format 2.
            chunk_key_encoding={"name": "v2" if zarr_format == 2 else "default", "separator": "/"},
            dimension_names=None if zarr_format == 2 else ("c", "y", "x"),
        )
        for number, strip in enumerate(item.strips(step)):
            rows = slice(number * ROWS, number * ROWS + len(strip.mask))
            for channel, band in enumerate(strip.bands):
                array[channel, rows] = band


def _attributes(item: StoredMap, class_name: str, version: str, steps: list[int]) -> dict[str, Any]:
    pixel = item.pixel
    unit, edge = ({}, 1.0) if pixel is None else ({"unit": pixel.unit}, pixel.edge)
    axes = [{"name": "c", "type": "channel"}] + [{"name": name, "type": "space"} | unit for name in "yx"]
    scales = [{"type": "scale", "scale": [1.0, edge * step, edge * step]} for step in steps]
    multiscales = {
        "name": printable(item.name),
        "axes": axes,
        "datasets": [{"path": str(level), "coordinateTransformations": [scale]} for level, scale in enumerate(scales)],
    }
    window = {"start": 0.0, "end": 1.0, "min": 0.0, "max": 1.0}
    channels = [
        {"label": printable(name), "color": colour, "window": window, "active": name != "spread"}
        for name, colour in zip(item.bands(class_name), COLOURS, strict=False)
    ]
    if version == "0.4":
        return {
            "multiscales": [{"version": version} | multiscales],
            "omero": {"version": version, "channels": channels},
        }
    return {"ome": {"version": version, "multiscales": [multiscales], "omero": {"channels": channels}}}
