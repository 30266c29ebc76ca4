"""From a folder of maps to the files of one format."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.progress import track

from compseg.errors import require
from compseg.exports.objects import write_geojson, write_tables
from compseg.exports.ome import write_ome_tiff, write_ome_zarr
from compseg.exports.pictures import write_envi, write_npy, write_png
from compseg.exports.stored import maps_in
from compseg.files import atomic_json, read_json, remove_partials
from compseg.inference.outputs import MAPS
from compseg.run_folder import refuse_other_kind

# What writes a map in each format; its options are those of the verb by the same names.
WRITERS: dict[str, Callable[..., list[Path]]] = {
    "png": write_png,
    "ome_tiff": write_ome_tiff,
    "ome_zarr": write_ome_zarr,
    "envi": write_envi,
    "npy": write_npy,
    "csv": write_tables,
    "geojson": write_geojson,
}
RECORD = "export.json"
WITHOUT_SIZE = ("png", "npy")  # which cannot say how large a pixel is


def export_maps(
    folder: Path,
    format: str,
    out: Path,
    *,
    threshold: float | None = None,
    pixel_size: float | None = None,
    pixel_unit: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the maps of a folder in the format of other programs.

    A map is read a strip of rows at a time. A file appears when it is whole, in place of that of an earlier export.

    Args:
        folder: What `predict` wrote, or a run folder or another one that `evaluate` wrote; stays as it is.
        format: One of `WRITERS`.
        out: Folder, made if absent.
        threshold: In place of the one that the maps were written with.
        pixel_size: Edge of a pixel; None: that of the cohort, if the maps are of one that is still there.
        pixel_unit: Of `pixel_size`; None: micrometres.
        options: Of the format; None in it is the format's own default.

    Returns:
        The paths written.

    Raises:
        CompsegError: There are no maps, or they would be overwritten; `out` holds something else; an option is none of
            the format's, or no map can be written with it.
    """
    writer = WRITERS[format]
    given = {key: value for key, value in (options or {}).items() if value is not None}
    read = {*inspect.signature(writer).parameters, *(() if format in WITHOUT_SIZE else ("pixel_size",))}
    idle = [key for key in (*given, *(["pixel_size"] if pixel_size is not None else [])) if key not in read]
    require(not idle, f"{', '.join(idle)}: does nothing in format={format}; leave it out")
    require(
        out.resolve() not in (folder.resolve(), (folder / MAPS).resolve()),
        f"out={out}: is where the maps are, which would be overwritten; give another folder",
    )
    items = maps_in(folder, threshold, pixel_size, pixel_unit)
    _reserve(out, folder)
    if writer is write_tables:
        return write_tables(items, out, **given)
    shown = track(items, description="exporting", transient=True)
    return [path for item in shown for path in writer(item, out / item.file, **given)]


def _reserve(out: Path, folder: Path) -> None:
    """Take a folder for exports of some maps; any number of formats, but no other maps."""
    refuse_other_kind(out, "an export", "out")
    path, mine = out / RECORD, {"maps": str(folder.resolve())}
    held = read_json(path, dict, "delete it") if path.is_file() else mine
    require(held == mine, f"{out}: holds what was exported of {held.get('maps')}; give another out=")
    remove_partials(out)  # that a killed export has left
    atomic_json(path, mine)
