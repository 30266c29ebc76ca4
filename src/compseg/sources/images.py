"""Image files listed in a manifest, as a source of samples, and the channel axis that they share."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from compseg.errors import CompsegError, closest
from compseg.samples import Channels, Mask, SampleArrays, SampleInfo
from compseg.sources.manifest import FILES, Classes, Row, read_manifest
from compseg.sources.readers import PICTURES, read_image, read_mask, read_picture

Axis = str | Path | Sequence[float] | Sequence[str]


class Images:
    """A `Source` of image files.

    Where any sample has a truth mask, healthy samples without one get an empty truth, because the disease region is
    absent in them; disease samples without one have no truth.

    Args:
        manifest: CSV that lists the samples; see `read_manifest`.
        classes: Label of each word in the column `class`: 1, 0, or None to leave its samples out.
        axis: Position of each channel; see `read_axis`. None: channels have no positions.
        unit: Unit of the axis, for example `cm-1`.
        channels_first: Whether .npy, .npz and .mat files hold `(C, H, W)`.
        keys: Variable to take from .npz and .mat files, by column: `image`, `tissue`, `truth`.

    Raises:
        CompsegError: The manifest, a mapping or the axis is wrong.
    """

    def __init__(
        self,
        manifest: str | Path,
        classes: Mapping[str, int | None] | None = None,
        axis: Axis | None = None,
        unit: str = "",
        channels_first: bool = False,
        keys: Mapping[str, str | None] | None = None,
    ) -> None:
        self._manifest = Path(manifest)
        self._classes = _checked_classes(classes)
        self._rows = {row.info.name: row for row in read_manifest(self._manifest, self._classes)}
        self._any_truth = any("truth" in row.files for row in self._rows.values())
        self._axis = None if axis is None else read_axis(axis, unit)
        self._channels_first = channels_first
        self._keys = {str(column): None if name is None else str(name) for column, name in (keys or {}).items()}
        for column in self._keys:
            if column not in FILES:
                raise CompsegError(f"source.keys.{column}: no such column; {closest(column, FILES, 'columns')}")

    def infos(self) -> Sequence[SampleInfo]:
        """Every sample, in the order of the manifest."""
        return [row.info for row in self._rows.values()]

    def channels(self) -> Channels:
        """The axis; without one, the channels of the first image."""
        return self._channels

    @cached_property
    def _channels(self) -> Channels:
        if self._axis is not None:
            return self._axis
        first = next(iter(self._rows.values()))
        # This reads a whole image, so its result is kept.
        count = self._image(first).shape[2]
        # Channels of a photograph are known; three channels of an .npy may be anything.
        photograph = first.files["image"].suffix.lower() in PICTURES
        return Channels(count, names={1: ("grey",), 3: ("red", "green", "blue")}.get(count, ()) if photograph else ())

    def read(self, info: SampleInfo) -> SampleArrays:
        """Read a sample's files.

        Raises:
            CompsegError: A file cannot be read, or its shape does not fit the other samples or the image.
        """
        row = self._rows[info.name]
        image = self._image(row)
        if image.shape[2] != self._channels.count:
            raise CompsegError(
                f"{row.files['image']}: sample {info.name} has {image.shape[2]} channels {image.shape}, "
                f"expected {self._channels.count}{' from source.axis' if self._axis else ' as in the first sample'}; "
                "convert it, or set source.channels_first=true if the channels come first"
            )
        thumbnail = read_picture(row.files["reference"]) if "reference" in row.files else None
        return SampleArrays(image, self._mask(row, "tissue", image), self._truth(row, image), thumbnail)

    def provenance(self) -> dict[str, Any]:
        """What determines the pixels and labels; changes when the manifest, an option or a file changes."""
        # Sizes and times of the files: hashing their contents could take as long as preparing them.
        stats = [file.stat() for row in self._rows.values() for file in row.files.values()]
        return {
            "source": "images",
            # Without its folder: a cohort stays the same when its files are moved.
            "manifest": self._manifest.name,
            "manifest_sha256": hashlib.sha256(self._manifest.read_bytes()).hexdigest(),
            "files_sha256": _digest([(stat.st_size, stat.st_mtime_ns) for stat in stats]),
            "classes": self._classes,
            "axis": "" if self._axis is None else _digest(self._axis.to_dict()),
            "channels_first": self._channels_first,
            "keys": self._keys,
        }

    def _image(self, row: Row) -> np.ndarray[Any, Any]:
        return read_image(row.files["image"], self._keys.get("image"), self._channels_first)

    def _mask(self, row: Row, column: str, image: np.ndarray[Any, Any]) -> Mask | None:
        if column not in row.files:
            return None
        mask = read_mask(row.files[column], self._keys.get(column))
        if mask.shape != image.shape[:2]:
            raise CompsegError(
                f"{row.files[column]}: {column} of sample {row.info.name} is {mask.shape}, "
                f"expected {image.shape[:2]} as its image; masks need the image's height and width"
            )
        return mask

    def _truth(self, row: Row, image: np.ndarray[Any, Any]) -> Mask | None:
        if "truth" not in row.files and row.info.label == 0 and self._any_truth:
            return np.zeros(image.shape[:2], bool)
        return self._mask(row, "truth", image)


def _checked_classes(classes: Mapping[str, int | None] | None) -> Classes | None:
    if classes is None:
        return None
    for word, label in classes.items():
        # To Python True equals 1, so that `in` alone would let it pass.
        if label not in (0, 1, None) or isinstance(label, bool):
            raise CompsegError(
                f"source.classes.{word}: expected 1 (disease), 0 (healthy) or null (leave it out), found {label}"
            )
    # The command line reads `{1: 1}` as a number; in the manifest a class is always text.
    return {str(word): label for word, label in classes.items()}


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def read_axis(axis: Axis, unit: str = "") -> Channels:
    """Make the channels of an axis.

    Args:
        axis: A CSV of one column, in channel order, with or without a header; a 1-D .npy; a list of numbers; or a list
            of names, of which some may be numbers.
        unit: Unit of the values; empty: taken from the header, as in `wavenumber_per_cm`, `wavenumber (cm-1)` or
            `wavelength_nm`.

    Returns:
        Channels with values, or with names.

    Raises:
        CompsegError: Not numbers, not finite, or neither rising nor falling.
    """
    if isinstance(axis, str | Path):
        values, header = _from_file(Path(axis))
        return _spectral(str(axis), values, unit or _unit(header))
    if any(isinstance(name, str) for name in axis):
        return Channels(len(axis), names=tuple(str(name) for name in axis))
    return _spectral("source.axis", [float(value) for value in axis], unit)


def _spectral(where: str, values: list[float], unit: str) -> Channels:
    finite = int(np.isfinite(values).sum())
    if not values or finite < len(values):
        raise CompsegError(
            f"{where}: expected a finite number for each channel, found {finite} in {len(values)} rows; add the rest"
        )
    signs = {np.sign(after - before) for before, after in pairwise(values)}
    if not (signs <= {1.0} or signs <= {-1.0}):
        raise CompsegError(
            f"{where}: values neither rise nor fall throughout; list them in the order of the channels, each once"
        )
    return Channels(len(values), values=tuple(values), unit=unit)


def _from_file(path: Path) -> tuple[list[float], str]:
    try:
        if path.suffix.lower() == ".npy":
            return [float(value) for value in np.load(path, allow_pickle=False).ravel()], ""
        # Spreadsheets put a byte order mark first, which would make a header of the first number.
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    except (OSError, ValueError, TypeError) as error:
        raise CompsegError(
            f"{path}: cannot be read as an axis ({error}); expected a CSV of one column, or .npy"
        ) from error
    header = cells.pop(0) if cells and not _number(cells[0]) else ""
    for line, cell in enumerate(cells, start=2 if header else 1):
        if not _number(cell):
            raise CompsegError(f"{path}: line {line}: '{cell}' is no number; expected one number for each channel")
    return [float(cell) for cell in cells], header


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unit(header: str) -> str:
    """The unit in a column's name: in brackets, after `_per_` or after the last `_`; else empty."""
    if found := re.search(r"[(\[](.+)[)\]]", header):
        return found[1].strip()
    if found := re.search(r"_per_(\w+)$", header):
        return f"{found[1]}-1"
    found = re.search(r"_(\w+)$", header)
    return found[1] if found else ""
