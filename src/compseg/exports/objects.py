"""Regions as objects: GeoJSON that QuPath opens, and tables of areas."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from gzip import GzipFile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.errors import require
from compseg.exports.regions import Region, regions_of
from compseg.exports.stored import CLASS, PixelSize, StoredMap
from compseg.files import atomic_open, atomic_text, csv_text
from compseg.plots.overlay import DISEASE_RGB

AREAS = (
    *("sample", "threshold", "regions", "area_pixels", "area", "unit", "mean_activation", "mean_spread"),
    *("tissue_pixels", "area_fraction", "file"),
)
REGIONS = (
    *("sample", "id", "class", "area_pixels", "area", "unit", "mean_activation", "mean_spread", "holes"),
    *("left", "top", "right", "bottom"),
)


Pair = Sequence[float]


def write_geojson(
    item: StoredMap,
    stem: Path,
    class_name: str = CLASS,
    offset: Pair = (0.0, 0.0),
    scale: Pair | float = 1.0,
    gzip: bool = False,
    tma_core: bool = False,
) -> list[Path]:
    """Write `NAME.geojson`, or `NAME.geojson.gz`: a feature for each region, a polygon along the edges of its pixels.

    Sources: RFC 7946; what QuPath reads of `properties` (objectType, classification, measurements; `id` must be a
    UUID).

    Args:
        item: The map.
        stem: Of the path.
        class_name: Of the regions.
        offset: x and y of the upper left corner of the map in the coordinates of another picture of the sample.
        scale: How many of that picture's pixels the edge of a pixel of the map is long, along x and y or both.
        gzip: Whether to compress it.
        tma_core: Whether the map is a core of a tissue microarray: its frame comes first, as a core of the sample's
            name, which QuPath puts the regions into.

    Raises:
        CompsegError: An offset or scale that is none.
    """
    shift, factor = _pair("offset", offset), _pair("scale", [scale, scale] if isinstance(scale, int | float) else scale)
    require(min(factor) > 0, f"scale={scale}: expected above 0, or a map would be mirrored")
    path = stem.with_name(f"{stem.name}.geojson{'.gz' if gzip else ''}")
    with ExitStack() as stack:
        file: Any = stack.enter_context(atomic_open(path))
        if gzip:
            # Without a time, so that the same map gives the same bytes.
            file = stack.enter_context(GzipFile("", "wb", fileobj=file, mtime=0))
        file.write(b'{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(_features(item, class_name, factor, shift, tma_core)):
            line = json.dumps(feature, ensure_ascii=False)
            file.write((",\n" * bool(number) + line).encode(errors="backslashreplace"))
        file.write(b"]}\n")
    return [path]


def _features(
    item: StoredMap, class_name: str, factor: NDArray[np.float64], shift: NDArray[np.float64], tma_core: bool
) -> Iterator[dict[str, Any]]:
    if tma_core:
        frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * item.shape[::-1]
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"core {item.name!a}")),
            "geometry": {"type": "Polygon", "coordinates": [(frame * factor + shift).tolist()]},
            "properties": {"objectType": "tmaCore", "name": item.name, "isMissing": False},
        }
    for region in _regions(item):
        yield _feature(item, region, [(ring * factor + shift).tolist() for ring in region.rings], class_name)


def _pair(key: str, value: Pair) -> NDArray[np.float64]:
    fine = len(value) == 2 and all(isinstance(part, int | float) and math.isfinite(part) for part in value)
    require(fine, f"{key}={list(value)}: expected two numbers, [x,y]")
    return np.array(value, np.float64)


def _regions(item: StoredMap) -> Iterator[Region]:
    return regions_of(item.strips(), item.shape[1])


def _feature(item: StoredMap, region: Region, rings: list[Any], class_name: str) -> dict[str, Any]:
    measurements = {"Mean activation": region.activation, "Area px^2": region.pixels}
    if region.spread is not None:
        measurements["Mean spread"] = region.spread
    if item.pixel is not None:
        measurements[f"Area {item.pixel.symbol}^2"] = area_of(region.pixels, item.pixel)
    return {
        "type": "Feature",
        "id": identifier(item, region),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "name": item.name,
            "classification": {"name": class_name, "color": list(DISEASE_RGB)},
            "measurements": measurements,
        },
    }


def identifier(item: StoredMap, region: Region) -> str:
    """The UUID of a region: the same for the same region of the same map, however often it is exported."""
    text = f"{item.name!a} {item.threshold} {region.rings[0][0].tolist()} {region.pixels} {region.activation}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


def area_of(pixels: int, pixel: PixelSize) -> float:
    """The area of pixels in the square of their unit."""
    return float(pixels * pixel.edge**2)


def write_tables(items: Sequence[StoredMap], out: Path, class_name: str = CLASS) -> list[Path]:
    """Write `areas.csv`, a row for each map, and `regions.csv`, a row for each region."""
    areas, rows = [], []
    for item in items:
        regions = list(_regions(item))
        areas.append(_areas(item, regions))
        rows += [_row(item, region, class_name) for region in regions]
    paths = [out / "areas.csv", out / "regions.csv"]
    for path, columns, table in zip(paths, (AREAS, REGIONS), (areas, rows), strict=True):
        atomic_text(path, csv_text(columns, table))
    return paths


def _areas(item: StoredMap, regions: Sequence[Region]) -> list[Any]:
    pixels, tissue = sum(region.pixels for region in regions), item.tissue_pixels
    activation = sum(region.pixels * region.activation for region in regions) / pixels if pixels else ""
    known = [region.pixels * region.spread for region in regions if region.spread is not None]
    share = "" if tissue is None else round(pixels / max(tissue, 1), 6)
    counted = [item.name, item.threshold, len(regions), *_measured(item, pixels), activation]
    return [*counted, sum(known) / pixels if known else "", "" if tissue is None else tissue, share, item.file]


def _row(item: StoredMap, region: Region, class_name: str) -> list[Any]:
    (left, top), (right, bottom) = region.rings[0].min(0).tolist(), region.rings[0].max(0).tolist()
    known = [item.name, identifier(item, region), class_name, *_measured(item, region.pixels), region.activation]
    return [*known, "" if region.spread is None else region.spread, len(region.rings) - 1, left, top, right, bottom]


def _measured(item: StoredMap, pixels: int) -> list[Any]:
    """A number of pixels, their area and its unit."""
    return [pixels, "", ""] if item.pixel is None else [pixels, area_of(pixels, item.pixel), f"{item.pixel.symbol}^2"]
