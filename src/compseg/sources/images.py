"""Image files listed in a manifest, as a source of samples, and the channel axis that they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compseg.axes import align
from compseg.errors import CompsegError, closest
from compseg.inputs import InputSpec
from compseg.samples import Channels, Image, Mask, SampleArrays, SampleInfo
from compseg.sources.axis import Axis, read_axis
from compseg.sources.manifest import Classes, Row, read_manifest
from compseg.sources.masks import in_words, mask_of
from compseg.sources.readers import ImageFile, companions, read_file, read_labels, read_picture

KEYS = ("image", "tissue", "truth", "axis")  # what a variable may be


class Images:
    """A `Source` of image files.

    Where any sample has a truth mask, healthy samples without one get an empty truth, because the disease region is
    absent in them; disease samples without one have no truth.

    Args:
        manifest: CSV that lists the samples; see `read_manifest`.
        classes: Label of each word in the column `class`: 1, 0, or None to leave its samples out.
        axis: Position of each channel; see `read_axis`. None: channels have no positions.
        unit: Unit of the axis, for example `cm-1`; also of an axis in the files that have no unit.
        channels_first: Whether arrays (.npy, .npz, .mat, HDF5) hold `(C, H, W)`.
        keys: Variable to take from .npz, .mat and HDF5 files, by column: `image`, `tissue`, `truth`; and `axis`, the
            positions of the channels in the image's file. A mask with a key and without a file is in the image's file.
        truth_value: The value of truth masks that is disease, or several; None: the only one beside 0.

    Raises:
        CompsegError: The manifest, a mapping or the axis is wrong.
    """

    _mapped = False  # whether the pixels of a file may stay on disk until they are needed

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
        self._axis = None if axis is None else read_axis(axis, unit)
        self._how, self._unit = InputSpec(checked_keys(keys, "source.keys"), channels_first), unit
        named = {column for row in self._rows.values() for column in row.files}
        # A mask that has a key, and a file in no row, is a variable of the image's file.
        self._inside = set(self._how.keys) - named
        self._any_truth = "truth" in named | self._inside
        self._truth_value = _checked_values(truth_value)

    def infos(self) -> Sequence[SampleInfo]:
        """Every sample, in the order of the manifest."""
        return [row.info for row in self._rows.values()]

    def channels(self) -> Channels:
        """The axis; without one, the channels of the first image, which the others are brought to."""
        return self._channels

    @cached_property
    def _channels(self) -> Channels:
        if self._axis is not None:
            return self._axis
        # This reads a whole image, so its result is kept.
        return self.file_of(next(iter(self._rows.values()))).channels

    def read(self, info: SampleInfo) -> SampleArrays:
        """Read a sample's files.

        Raises:
            CompsegError: A file cannot be read, or its shape does not fit the other samples or the image.
        """
        row = self._rows[info.name]
        file = self.file_of(row)
        image, remarks = self._of_channels(row, file)
        thumbnail = read_picture(row.files["reference"]) if "reference" in row.files else file.thumbnail
        tissue, several = self._mask(row, "tissue", image)
        truth, taken = self._truth(row, image)
        return SampleArrays(image, tissue, truth, thumbnail, (*remarks, *several, *taken))

    def _of_channels(self, row: Row, file: ImageFile) -> tuple[Image, tuple[str, ...]]:
        """An image with the channels of the cohort, and what was done for it."""
        # Colours of a photograph are no more than a default.
        described = file.channels.spectral or (bool(file.channels.names) and self._axis is None)
        where = f"{row.files['image']}"
        if not described and file.channels.count != self._channels.count:
            raise CompsegError(
                f"{where}: sample {row.info.name} has {file.image.shape[2]} channels {file.image.shape}, "
                f"expected {self._channels.count}{' from source.axis' if self._axis else ' as in the first sample'}; "
                "convert it, or set source.channels_first=true if the channels come first"
            )
        done = (f"{file.unmeasured} pixels were not measured and are 0",) if file.unmeasured else ()
        if not described and (self._axis is not None or not self._channels.spectral):
            return file.image, done
        alignment = align(file.channels, self._channels, where)
        return alignment(file.image), (*done, *filter(None, [alignment.said]))

    def provenance(self) -> dict[str, Any]:
        """What determines the pixels and labels; changes when the manifest, an option or a file changes."""
        # Sizes and times of the files: hashing their contents could take as long as preparing them.
        named = [file for row in self._rows.values() for file in row.files.values()]
        stats = [file.stat() for path in named for file in (path, *companions(path))]
        return {
            "source": "images",
            # Without its folder: a cohort stays the same when its files are moved.
            "manifest": self._manifest.name,
            "manifest_sha256": hashlib.sha256(self._manifest.read_bytes()).hexdigest(),
            "files_sha256": _digest([(stat.st_size, stat.st_mtime_ns) for stat in stats]),
            "classes": self._classes,
            "axis": "" if self._axis is None else _digest(self._axis.to_dict()),
            "channels_first": self._how.channels_first,
            "keys": dict(self._how.keys),
            # Only where it is given: cohorts that were made before it was an option stay the same.
            **({"truth_value": list(self._truth_value)} if self._truth_value else {}),
        }

    def file_of(self, row: Row) -> ImageFile:
        """What the image file of a row holds."""
        return read_file(row.files["image"], self._how, self._unit, self._mapped)

    def _mask(self, row: Row, column: str, image: np.ndarray[Any, Any]) -> tuple[Mask | None, tuple[str, ...]]:
        """A mask, and which of its values were taken, where the user should know."""
        file = row.files.get(column, row.files["image"] if column in self._inside else None)
        if file is None:
            return None, ()
        truth, labels = column == "truth", read_labels(file, self._how.keys.get(column))
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


def checked_keys(keys: Mapping[str, str | None] | None, where: str) -> dict[str, str]:
    """The variables that are named, by column.

    Raises:
        CompsegError: There is no such column.
    """
    named = {str(column): str(name) for column, name in (keys or {}).items() if name is not None}
    for column in named:
        if column not in KEYS:
            raise CompsegError(f"{where}.{column}: no such column; {closest(column, KEYS, 'columns')}")
    return named


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
