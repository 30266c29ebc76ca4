"""Image files listed in a manifest, as a source of samples, and the channel axis that they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compseg.errors import CompsegError, closest
from compseg.samples import Channels, Mask, SampleArrays, SampleInfo
from compseg.sources.axis import Axis, read_axis
from compseg.sources.manifest import FILES, Classes, Row, read_manifest
from compseg.sources.masks import in_words, mask_of
from compseg.sources.readers import PICTURES, read_image, read_labels, read_picture


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
        truth_value: The value of truth masks that is disease, or several; None: the only one beside 0.

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
        truth_value: int | Sequence[int] | None = None,
    ) -> None:
        self._manifest = Path(manifest)
        self._classes = _checked_classes(classes)
        self._rows = {row.info.name: row for row in read_manifest(self._manifest, self._classes)}
        self._any_truth = any("truth" in row.files for row in self._rows.values())
        self._axis = None if axis is None else read_axis(axis, unit)
        self._channels_first = channels_first
        self._keys = {str(column): None if name is None else str(name) for column, name in (keys or {}).items()}
        self._truth_value = _checked_values(truth_value)
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
        tissue, several = self._mask(row, "tissue", image)
        truth, taken = self._truth(row, image)
        return SampleArrays(image, tissue, truth, thumbnail, (*several, *taken))

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
            # Only where it is given: cohorts that were made before it was an option stay the same.
            **({"truth_value": list(self._truth_value)} if self._truth_value else {}),
        }

    def _image(self, row: Row) -> np.ndarray[Any, Any]:
        return read_image(row.files["image"], self._keys.get("image"), self._channels_first)

    def _mask(self, row: Row, column: str, image: np.ndarray[Any, Any]) -> tuple[Mask | None, tuple[str, ...]]:
        """A mask, and which of its values were taken, where the user should know."""
        if column not in row.files:
            return None, ()
        file, truth = row.files[column], column == "truth"
        labels = read_labels(file, self._keys.get(column))
        if labels.shape != image.shape[:2]:
            raise CompsegError(
                f"{file}: {column} of sample {row.info.name} is {labels.shape}, "
                f"expected {image.shape[:2]} as its image; masks need the image's height and width"
            )
        mask = mask_of(file, labels, self._truth_value if truth else None)
        values = np.unique(labels[mask])
        if not len(values) or (len(values) == 1 and not truth):
            return mask, ()
        taken = f"{column}: {in_words(values)} {'are all' if len(values) > 1 else 'is'} taken for "
        advice = f"; source.truth_value={values[-1]:g} would take one" if truth and len(values) > 1 else ""
        return mask, (taken + ("disease" if truth else "tissue") + advice,)

    def _truth(self, row: Row, image: np.ndarray[Any, Any]) -> tuple[Mask | None, tuple[str, ...]]:
        if "truth" not in row.files and row.info.label == 0 and self._any_truth:
            return np.zeros(image.shape[:2], bool), ()
        return self._mask(row, "truth", image)


def _checked_classes(classes: Mapping[Any, int | None] | None) -> Classes | None:
    if classes is None:
        return None
    for word, label in classes.items():
        # To Python True equals 1, so that `in` alone would let it pass.
        if label not in (0, 1, None) or isinstance(label, bool):
            raise CompsegError(
                f"source.classes.{word}: expected 1 (disease), 0 (healthy) or null (leave it out), found {label}"
            )
        if type(word) in (bool, float):  # as YAML reads `on` and `1e5`
            raise CompsegError(f"source.classes: {word} was read as {type(word).__name__}; quote it, in a YAML file")
    # The command line reads `{1: 1}` as a number; in the manifest a class is always text.
    return {str(word): label for word, label in classes.items()}


def _checked_values(values: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    several = tuple(values) if isinstance(values, list | tuple) else (values,)
    if not several or any(type(value) is not int for value in several):  # to isinstance True would be a number
        raise CompsegError(f"source.truth_value={values}: expected a whole number, or a list of them")
    return several


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
