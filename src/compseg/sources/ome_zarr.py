"""OME-Zarr images, a folder each: the full resolution of the first image, of Zarr v2 and v3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import zarr
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.samples import Channels
from compseg.sources.on_disk import OnDisk
from compseg.sources.pictures import Pixels

Array = NDArray[Any]
AXES = "tczyx"  # of versions 0.1 and 0.2, which do not say


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image."""
    try:
        return any((path / name).is_file() for name in (".zgroup", "zarr.json")) and bool(_described(path)[1])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _described(path: Path) -> tuple[zarr.Group, Mapping[str, Any]]:
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs.asdict()
    found = attributes.get("ome", attributes)
    return group, found if isinstance(found, dict) and found.get("multiscales") else {}


def read_ome_zarr(path: Path, key: str | None = None) -> Pixels:
    """The image `(H, W, C)` of an OME-Zarr folder; `key` names another of its resolutions."""
    group, described = _described(path)
    if not described:
        raise CompsegError(f"{path}: no OME-Zarr image (multiscales are missing); give the folder of the image")
    image = described["multiscales"][0]
    place = str(key or image["datasets"][0]["path"])
    # A path of a stranger's file may lead nowhere but into its own folder.
    if not (path / place).resolve().is_relative_to(path.resolve()):
        raise CompsegError(f"{path}: dataset {place} lies outside of it; save the image again")
    array = group[place]
    if not isinstance(array, zarr.Array):
        raise CompsegError(f"{path}: {place} is no array; name one in source.keys.image")
    axes = [str(axis["name"] if isinstance(axis, dict) else axis) for axis in image.get("axes", AXES)]
    sizes = dict(zip(axes, array.shape, strict=True))
    if not {"y", "x"} <= set(sizes) or any(sizes.get(axis, 1) != 1 for axis in sizes if axis not in "cyx"):
        raise CompsegError(f"{path}: expected rows, columns and channels, found {sizes}; save one time and depth")
    values = OnDisk(path, lambda: array, [axes.index(axis) for axis in ("y", "x", "c") if axis in axes])
    names = [str(channel.get("label", "")) for channel in described.get("omero", {}).get("channels", [])]
    known = "c" in axes and len(names) == values.shape[2] and all(names) and len(set(names)) == len(names)
    return Pixels(cast(Array, values), channels=Channels(len(names), names=tuple(names)) if known else None)
