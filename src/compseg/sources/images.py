"""Image files listed in a manifest, as a source of samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compseg.errors import CompsegError
from compseg.samples import Channels, Mask, SampleArrays, SampleInfo
from compseg.sources.axis import Axis, read_axis
from compseg.sources.manifest import FILES, Classes, Row, closest, read_manifest
from compseg.sources.readers import PICTURES, read_image, read_mask, read_picture


class Images:
    """A `Source` of image files.

    Where any sample has a truth mask, healthy samples without one have an empty truth, for in them the disease region
    is absent; disease samples without one have no truth.

    Args:
        manifest: CSV that lists the samples; see `read_manifest`.
        classes: Label of each word in the column `class`: 1, 0, or None to leave its samples out.
        axis: Where each channel lies; see `read_axis`. None: channels have no positions.
        unit: Unit of the axis, for example `cm-1`.
        channels_first: Whether .npy, .npz and .mat files hold `(C, H, W)`.
        keys: Variable to take from .npz and .mat files, by column: `image`, `tissue`, `truth`.

    Raises:
        CompsegError: The manifest, a mapping or the axis is at fault.
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
        self._axis = None if axis is None else read_axis(axis, unit)
        self._channels_first = channels_first
        self._keys = dict(keys or {})
        for column in self._keys:
            if column not in FILES:
                raise CompsegError(f"source.keys.{column}: no such column; {closest(column, FILES)}")

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
        count = self._image(first).shape[2]
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
        """What decides the pixels and labels; changes when the manifest, an option or a file changes."""
        return {
            "source": "images",
            "manifest": self._manifest.name,
            "manifest_sha256": hashlib.sha256(self._manifest.read_bytes()).hexdigest(),
            "files_sha256": self._files_digest(),
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

    @cached_property
    def _any_truth(self) -> bool:
        return any("truth" in row.files for row in self._rows.values())

    def _files_digest(self) -> str:
        """Of sizes and times: hashing the contents could take as long as preparing them."""
        stats = [file.stat() for row in self._rows.values() for file in row.files.values()]
        return _digest([(stat.st_size, stat.st_mtime_ns) for stat in stats])


def _checked_classes(classes: Mapping[str, int | None] | None) -> Classes | None:
    if classes is None:
        return None
    for word, label in classes.items():
        if label not in (0, 1, None) or isinstance(label, bool):
            raise CompsegError(
                f"source.classes.{word}: expected 1 (disease), 0 (healthy) or null (left out), found {label}"
            )
    return {str(word): label for word, label in classes.items()}


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
