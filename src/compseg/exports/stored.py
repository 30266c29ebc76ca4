"""The maps that prediction or evaluation has left in a folder, read a strip of rows at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compseg.cohort import Cohort, is_url
from compseg.errors import CompsegError, reading, require
from compseg.evaluation.subject import ABOUT
from compseg.file_names import file_name
from compseg.files import from_cell, read_checked, read_json
from compseg.inference.outputs import MAPS, RECORD, SPREAD, TABLE, read_record
from compseg.run_folder import load_config
from compseg.samples import Mask

CLASS = "disease"  # what is above the threshold, unless the user calls it something else
ROWS = 256  # of a strip
MICROMETRE = ("µm", "micrometer", 1e-6)
# What people call a unit: its symbol, its name in OME-Zarr, and metres.
UNITS = {
    "nm": ("nm", "nanometer", 1e-9),
    "um": MICROMETRE,
    "µm": MICROMETRE,
    "μm": MICROMETRE,  # Unicode has two letters mu
    "micron": MICROMETRE,
    "mm": ("mm", "millimeter", 1e-3),
    "cm": ("cm", "centimeter", 1e-2),
    "m": ("m", "meter", 1.0),
}


class PixelSize(NamedTuple):
    """The edge of a pixel, its unit's symbol and name in OME-Zarr, and how many metres the unit has."""

    edge: float
    symbol: str
    unit: str
    metres: float


class Strip(NamedTuple):
    """Some rows of a map, `(h, w)` each: activation, what is above the threshold, and how far it differs, if known."""

    activation: NDArray[np.float32]
    mask: Mask
    spread: NDArray[np.float32] | None = None

    @property
    def bands(self) -> list[NDArray[np.float32]]:
        """All in float32, the mask as 0 and 1."""
        return [np.asarray(part, np.float32) for part in self if part is not None]


@dataclass(frozen=True)
class StoredMap:
    """The activation map of one sample, on disk.

    Attributes:
        name: Of the sample: any text.
        file: What its files are called, without an ending.
        path: Of the activation map, .npy.
        shape: `(H, W)`.
        threshold: Activations above it count as disease.
        pixel: The size of a pixel; None where it is unknown.
        tissue_pixels: How many pixels count; None where the folder does not say.
        spread: Path of the map of how far activations differ; None where there is none.
    """

    name: str
    file: str
    path: Path
    shape: tuple[int, int]
    threshold: float
    pixel: PixelSize | None
    tissue_pixels: int | None
    spread: Path | None = None

    def bands(self, class_name: str) -> list[str]:
        """What the bands of a strip are."""
        return ["activation", class_name, *["spread"] * (self.spread is not None)]

    def strips(self, step: int = 1) -> Iterator[Strip]:
        """The map from top to bottom.

        Args:
            step: Gives each `step`-th row and column alone.
        """
        for first in range(0, -(-self.shape[0] // step), ROWS):
            yield self.rows(first, first + ROWS, step)

    def rows(self, first: int, last: int, step: int = 1) -> Strip:
        """The same of some rows, as far as there are any."""

        def read(path: Path) -> NDArray[np.float32]:
            # Mapped again each time: pages that were read count as our memory while the file stays mapped.
            mapped = np.load(path, mmap_mode="r")[::step, ::step]
            return np.array(mapped[max(0, first) : last], np.float32, order="C")

        activation = read(self.path)
        # Off tissue the activation is 0, which is above no threshold.
        return Strip(activation, activation > self.threshold, None if self.spread is None else read(self.spread))


def maps_in(folder: Path, threshold: float | None, size: float | None, unit: str | None) -> list[StoredMap]:
    """The maps in a folder.

    Args:
        folder: What `predict` wrote, or a run folder or another one that `evaluate` wrote.
        threshold: In place of the one that the folder was written with.
        size: Edge of a pixel; None: the cohort's, if the maps are of one that is still there.
        unit: Of `size`; None: micrometres.

    Raises:
        CompsegError: There are none, one is missing or damaged, or a value is out of range.
    """
    require(threshold is None or 0 <= threshold <= 1, f"threshold={threshold}: expected an activation in [0, 1]")
    require(size is None or size > 0, f"pixel_size={size}: expected a length above 0")
    require(unit is None or size is not None, f"pixel_unit={unit}: does nothing without pixel_size=; give both")
    given = None if size is None else _pixel_size(size, unit or "um", "pixel_unit")
    rows = _predicted(folder) if (folder / RECORD).is_file() else _evaluated(folder)
    sizes: dict[str, PixelSize | None] = {}
    found = []
    for row in rows:
        # Once for each cohort, not for each of its samples.
        if row["source"] not in sizes:
            sizes[row["source"]] = given or size_in_cohort(row["source"])
        stored = row["threshold"] if threshold is None else threshold
        path, spread = (folder / MAPS / f"{row['file']}{ending}" for ending in (".npy", SPREAD))
        shape, pixel, known = _shape(path), sizes[row["source"]], spread.is_file()
        require(not known or _shape(spread) == shape, f"{spread}: is not of the size of its map; delete it")
        tissue = row.get("tissue_pixels")
        found.append(StoredMap(row["name"], row["file"], path, shape, stored, pixel, tissue, spread if known else None))
    return found


def _predicted(folder: Path) -> list[dict[str, Any]]:
    record = read_record(folder)
    assert record is not None
    pixels = {from_cell(row["sample"]): int(row["tissue_pixels"]) for row in _table(folder / TABLE)}
    with reading(folder / RECORD, "predict again"):
        return [
            {
                "name": name,
                "file": image["file"],
                "source": str(image["path"]),
                "threshold": float(record["threshold"]),
                "tissue_pixels": pixels.get(name),
            }
            for name, image in record["images"].items()
        ]


def _evaluated(folder: Path) -> list[dict[str, Any]]:
    table = folder / "samples.csv"
    if not table.is_file():
        raise CompsegError(
            f"maps={folder}: neither {RECORD} nor samples.csv; give the out= of compseg.predict, or a run folder"
        )
    fix = "run compseg.evaluate again"
    with reading(folder, fix):
        threshold = float(read_json(folder / "metrics.json", dict, fix)["threshold"])
        about = folder / ABOUT
        source = read_json(about, dict, fix)["cohort"] if about.is_file() else load_config(folder).data.path
        names = [(from_cell(row["sample"]), from_cell(row.get("file") or row["sample"])) for row in _table(table)]
        # The folder may be a stranger's, and a file's name lead out of it.
        return [
            {"name": name, "file": file_name(file), "source": str(source), "threshold": threshold}
            for name, file in names
        ]


def _table(path: Path) -> list[dict[str, str]]:
    with reading(path, "run the command that wrote it again"):
        return list(csv.DictReader(io.StringIO(read_checked(path).decode(), newline=""), strict=True))


def _shape(path: Path) -> tuple[int, int]:
    fix = "run the command that wrote it again; evaluate writes maps with report=true"
    require(path.is_file(), f"{path}: missing; {fix}")
    with reading(path, fix):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 2 or not array.size or array.dtype.kind != "f":
            raise TypeError(f"expected a map (H, W) of floating point, found {array.shape} {array.dtype}")
        return array.shape[0], array.shape[1]


def size_in_cohort(source: str) -> PixelSize | None:
    """The size of a pixel in the cohort that maps were made of, if it is one and still there."""
    # Not over the network: what a stranger's folder names would be fetched.
    if is_url(source) or not (Path(source) / "zarr.json").is_file():
        return None
    cohort = Cohort.open(source)
    return None if cohort.pixel_size is None else _pixel_size(cohort.pixel_size, cohort.pixel_unit, source)


def _pixel_size(edge: float, unit: str, where: str) -> PixelSize:
    require(
        unit in UNITS,
        f"{where}: {unit!r:.40} is no unit of length; expected {', '.join(UNITS)}; give pixel_size= and pixel_unit=",
    )
    return PixelSize(float(edge), *UNITS[unit])
