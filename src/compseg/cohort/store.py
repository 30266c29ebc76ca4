"""The read side of a cohort."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu

from compseg.cohort.layout import ATTRIBUTE, SCHEMA, Array, Record, node, partial_path
from compseg.cohort.places import Place, exists, faults, is_url, place, reason, store_of
from compseg.cohort.splits import hold_out
from compseg.errors import CompsegError
from compseg.samples import SPLITS, Channels, Image, Mask, SampleInfo, Window

LARGE = 16 * 2**20  # bytes


class Cohort:
    """Samples on disk; cheap to open and to pickle.

    Pixels are read when asked for. Arrays are opened once a process, never carried over a fork, so loader workers of
    any start method may share a cohort.

    Attributes:
        path: The Zarr group: a folder, or a URL of object storage as a str.
        channels: The channel axis of all images.
        tissue_rule: Which pixels count where a sample came without a mask: `all`, `nonzero` or `otsu`.
        classes: Label of each pathologist's word in use.
        pixel_size: Edge of a pixel in `pixel_unit`; None if unknown.
        pixel_unit: Unit of `pixel_size`.
        provenance: What the source said of itself.
        dtype: Of the stored images, for example `float16`.
        infos: The samples, in the order of the source.
    """

    def __init__(self, path: Place, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.channels = Channels.from_dict(attributes["channels"])
        self.tissue_rule: str = attributes["tissue_rule"]
        self.classes: dict[str, int] = attributes["classes"]
        self.pixel_size: float | None = attributes["pixel_size"]
        self.pixel_unit: str = attributes["pixel_unit"]
        self.provenance: dict[str, Any] = attributes["provenance"]
        self.dtype: str = attributes["dtype"]
        self.records = [Record.from_dict(row) for row in attributes["samples"]]
        self.infos = [record.info for record in self.records]
        self._by_name = {record.info.name: record for record in self.records}
        self._arrays: dict[str, Any] = {}
        self._pid = os.getpid()

    @classmethod
    def open(cls, path: str | Path) -> Cohort:
        """Open a cohort; reads its attributes alone.

        Args:
            path: A folder, or a URL: `s3://`, `gs://`, `az://` or `https://`.

        Raises:
            CompsegError: There is none, it is unfinished, it is something else, a newer compseg wrote it, or its
                storage is out of reach.
        """
        path = place(path)
        if not exists(path):
            raise CompsegError(_absent(path))
        attributes = read_attributes(path)
        if attributes is None or "samples" not in attributes:
            raise CompsegError(
                f"{path}: no cohort (a Zarr v3 group with attribute {ATTRIBUTE}); give the folder that prepare wrote"
            )
        if attributes["schema"] > SCHEMA:
            raise CompsegError(
                f"{path}: schema {attributes['schema']}, this compseg reads up to {SCHEMA}; update compseg"
            )
        return cls(path, attributes)

    def holding_out(self, group: str, role: str = "test") -> Cohort:
        """The same cohort, split anew so that a group is what the others are judged on; see `hold_out`."""
        view = copy.copy(self)
        view.infos = hold_out(self.infos, group, role)
        return view

    def shape(self, name: str) -> tuple[int, int, int]:
        """`(H, W, C)` of an image, from the table of samples."""
        return self.record(name).shape

    def image(self, name: str, window: Window | None = None) -> Image:
        """Pixels of a sample.

        Args:
            name: The sample.
            window: Rows and columns to read; only the blocks that they touch are read. None: all.

        Returns:
            `(H, W, C)` in the stored dtype, raw values.

        Raises:
            CompsegError: No such sample, or its stored bytes are damaged; so also below.
        """
        return self.part(name, "image", window)

    def tissue(self, name: str, window: Window | None = None) -> Mask:
        """Which pixels count, `(H, W)` bool."""
        return self.part(name, "tissue", window)

    def truth(self, name: str, window: Window | None = None) -> Mask | None:
        """The expert's mask of the disease region, `(H, W)` bool; None where there is none."""
        return self.part(name, "truth", window) if self.has_truth(name) else None

    def thumbnail(self, name: str) -> NDArray[np.uint8] | None:
        """A picture for people, `(h, w, 3)` uint8; None where there is none."""
        return self.part(name, "reference") if "reference" in self.record(name).checksums else None

    def has_truth(self, name: str) -> bool:
        """Whether the sample has a truth mask; reads no pixels."""
        return "truth" in self.record(name).checksums

    def split(self, which: str) -> list[SampleInfo]:
        """The samples of `train`, `val` or `test`."""
        if which not in SPLITS:
            raise CompsegError(f"split {which}: expected one of {', '.join(SPLITS)}")
        return [info for info in self.infos if info.split == which]

    def record(self, name: str) -> Record:
        """The sample's row in the table."""
        if name not in self._by_name:
            raise CompsegError(f"{self.path}: no sample {name}; it holds {len(self.infos)}, {self.infos[0].name} first")
        return self._by_name[name]

    def part(self, name: str, part: str, window: Window | None = None) -> Array:
        """One stored array of a sample: `image`, `tissue`, `truth` or `thumbnail`."""
        with self._naming(name, part):
            array = self._array(node(name, part))
        sizes = array.shape[:2] if window is None else _lengths(window, array.shape)
        out = np.empty((*sizes, *array.shape[2:]), array.dtype)
        self.read_into(out, name, part, window)
        return out

    def read_into(self, out: Array, name: str, part: str, window: Window | None = None) -> None:
        """Decode an array into memory that is there already, of the stored dtype and the window's shape.

        A large array on disk is read by rows of blocks: Zarr would else hold all of it twice more, compressed and
        decoded.
        """
        height, width = out.shape[:2]
        top, left = (0, 0) if window is None else (window[0].start or 0, window[1].start or 0)
        with self._naming(name, part):
            array = self._array(node(name, part))
            whole = is_url(self.path) or out.nbytes < LARGE
            for first, last in pairwise([top, top + height] if whole else _cuts(top, height, array.chunks[0])):
                buffer = cpu.NDBuffer.from_numpy_array(out[first - top : last - top])
                array.get_basic_selection((slice(first, last), slice(left, left + width)), out=buffer)

    @contextmanager
    def _naming(self, name: str, part: str) -> Iterator[None]:
        """Say of what cannot be read which array it is."""
        self.record(name)
        try:
            yield
        except faults(self.path) as error:
            raise CompsegError(
                f"{self.path}/{node(name, part)}: damaged or missing ({reason(error)}); "
                f"python -m compseg.check cohort={self.path} lists all damage, then prepare it anew"
            ) from error

    def _array(self, path: str) -> Any:
        if self._pid != os.getpid():
            self._arrays, self._pid = {}, os.getpid()
        if path not in self._arrays:
            self._arrays[path] = zarr.open_array(store_of(self.path), path=path, mode="r", zarr_format=3)
        return self._arrays[path]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}


def _lengths(window: Window, shape: tuple[int, ...]) -> list[int]:
    """Rows and columns that a window has within an image."""
    return [len(range(*part.indices(size))) for part, size in zip(window, shape, strict=False)]


def _cuts(top: int, height: int, edge: int) -> list[int]:
    """Where rows are cut so that none but the first and last part holds less than whole blocks."""
    return [top, *range((top // edge + 1) * edge, top + height, edge), top + height]


def read_attributes(path: Place) -> dict[str, Any] | None:
    """The `compseg` attribute of a Zarr v3 group; None if there is no group or it has none."""
    errors = faults(path)
    try:
        attributes = zarr.open_group(store_of(path), mode="r", zarr_format=3).attrs.asdict()
    except errors:
        return None
    found = attributes.get(ATTRIBUTE)
    return found if isinstance(found, dict) else None


def _absent(path: Place) -> str:
    if is_url(path):
        return f"{path}: no such cohort; make one with python -m compseg.prepare ... out=data/mine.zarr upload={path}"
    partial = partial_path(Path(path))
    if partial.exists():
        return (
            f"{path}: its preparation was interrupted, {partial.name} is there; "
            "run the same prepare again, it goes on where it stopped"
        )
    return (
        f"{path}: no such cohort; "
        f"make one with python -m compseg.prepare source=images source.manifest=labels.csv out={path}"
    )
