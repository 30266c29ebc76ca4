"""The read side of a cohort."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr import Array as ZarrArray
from zarr.buffer import cpu

from compseg.cohort.attributes import MAX_SIDE, check_attributes, input_of
from compseg.cohort.layout import (
    ATTRIBUTE,
    SCHEMA,
    THUMBNAIL,
    Array,
    Record,
    checksum,
    fingerprint_of,
    node,
    partial_path,
)
from compseg.cohort.locations import (
    Location,
    exists,
    holds,
    is_url,
    location,
    open_store,
    read_errors,
    reason,
    revision,
)
from compseg.cohort.splits import hold_out
from compseg.errors import CompsegError, is_refusal, reading
from compseg.files import why_no_file
from compseg.inputs import InputSpec
from compseg.memory import free_host_memory
from compseg.samples import SPLITS, Channels, Image, Mask, SampleInfo, Window

STRIP = 2**28  # bytes of an array in memory at a time where all of it is looked through
CHANGED = "differs from what was written (checksum)"
MISSING = "its file is missing, or all zeros, which were not written"
REPLACED = "was replaced while it was in use, it now holds other samples or pixels"
LOOK_SECONDS = 10.0  # least time from one look at object storage to the next
LARGE = 16 * 2**20  # bytes: smaller arrays are read in one request, and their copies do not matter


class Cohort:
    """Samples on disk; cheap to open and to pickle.

    Pixels are read on demand. Arrays are opened once in each process and never carried over a fork, so loader workers
    of any start method may share a cohort.

    Attributes:
        path: The Zarr group: a folder, or a URL of object storage as a str.
        channels: The channel axis of all images.
        tissue_rule: Which pixels count where a sample came without a mask: `all`, `nonzero` or `otsu`.
        classes: Label of each pathologist's word in use.
        pixel_size: Edge of a pixel in `pixel_unit`; None if unknown.
        pixel_unit: Unit of `pixel_size`.
        provenance: How the source describes itself.
        input: How its files were read, and the scale of their values.
        dtype: Of the stored images, for example `float16`.
        infos: The samples, in the order of the source.
        fingerprint: SHA-256 of its table, pixels included; see `fingerprint_of`.
        verify: Whether values are compared with their checksums when an array is read for the first time.
    """

    verify = True

    def __init__(self, path: Location, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.channels = Channels.from_dict(attributes["channels"])
        self.tissue_rule: str = attributes["tissue_rule"]
        self.classes: dict[str, int] = attributes["classes"]
        self.pixel_size: float | None = attributes["pixel_size"]
        self.pixel_unit: str = attributes["pixel_unit"]
        self.provenance: dict[str, Any] = attributes["provenance"]
        self.input = InputSpec.from_dict(input_of(attributes))
        self.dtype: str = attributes["dtype"]
        self.records = [Record.from_dict(row) for row in attributes["samples"]]
        self.infos = [record.info for record in self.records]
        self._by_name = {record.info.name: record for record in self.records}
        self.fingerprint = fingerprint_of(attributes)
        self._revision: object = None
        self._looked = -math.inf
        self._verified: set[str] = set()  # arrays whose values were compared with their checksums
        self._arrays: dict[str, ZarrArray[Any]] = {}
        self._pid = os.getpid()

    def __repr__(self) -> str:
        labels = [info.label for info in self.infos]
        return (
            f"Cohort {self.path}: {len(labels)} samples, {sum(labels)} of them disease; "
            f"{self.channels.count} channels, {self.dtype}"
        )

    @classmethod
    def open(cls, path: str | Path) -> Cohort:
        """Open a cohort; reads only its attributes.

        Args:
            path: A folder, or a URL: `s3://`, `gs://`, `az://` or `https://`.

        Raises:
            CompsegError: There is no cohort, it is unfinished, it is something else, a newer compseg wrote it, or its
                storage does not answer.
        """
        where = location(path)
        if not exists(where):
            raise CompsegError(f"{where}: {_absent(where)}")
        attributes = read_attributes(where)
        if attributes is None or "samples" not in attributes:
            raise CompsegError(
                f"{where}: no cohort (a Zarr v3 group with attribute {ATTRIBUTE}); give the folder that prepare wrote"
            )
        # Only newer ones are refused: every version reads all earlier schemas.
        schema = attributes.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise CompsegError(f"{where}: schema {schema}, this compseg reads up to {SCHEMA}; update compseg")
        with reading(f"{where}/zarr.json", "prepare the cohort again"):
            check_attributes(attributes)
            return cls(where, attributes)

    def holding_out(self, group: object, role: str = "test") -> Cohort:
        """The same cohort with new splits: one group judges what the others train; see `hold_out`. None: as it is."""
        if group is None:
            return self
        # A shallow copy, since the pixels and the arrays that are open stay the same.
        view = copy.copy(self)
        view.infos = hold_out(self.infos, group, role)
        return view

    def is_unchanged(self) -> bool:
        """Whether its location still holds this cohort; where it holds nothing, or does not answer, that is unknown.

        Cheap: the table is read again only where its file is another one than at the last call.
        """
        # A request to object storage may take as long as a short epoch.
        if is_url(self.path) and time.monotonic() - self._looked < LOOK_SECONDS:
            return True
        self._looked, now = time.monotonic(), revision(self.path)
        if now in (None, self._revision):
            return True
        try:
            attributes = read_attributes(self.path)
            if attributes is not None and "samples" in attributes and fingerprint_of(attributes) != self.fingerprint:
                return False
        except (OSError, KeyError, TypeError):  # nothing that could be read in its place
            return True
        self._revision = now
        return True

    def shape(self, name: str) -> tuple[int, int, int]:
        """`(H, W, C)` of an image, from the table of samples."""
        return self.record(name).shape

    def image(self, name: str, window: Window | None = None) -> Image:
        """Pixels of a sample.

        Args:
            name: The sample.
            window: Rows and columns; only the blocks that they touch are read. None: all.

        Returns:
            `(H, W, C)` in the stored dtype, raw values.

        Raises:
            CompsegError: No such sample, or its stored bytes are damaged. The methods below raise the same.
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
        return self.part(name, THUMBNAIL) if THUMBNAIL in self.record(name).checksums else None

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
        """One stored array of a sample: `image`, `tissue`, `truth` or `reference` (the thumbnail)."""
        with self._naming(name, part):
            array = self._array(name, part)
        sizes = array.shape[:2]
        if window is not None:
            sizes = tuple(len(range(*side.indices(size))) for side, size in zip(window, sizes, strict=True))
        size = math.prod((*sizes, *array.shape[2:])) * array.dtype.itemsize
        # The system would grant more than there is, and kill the process when it is used.
        if size > LARGE and size > (free := free_host_memory()):
            raise MemoryError(f"{self.path}/{node(name, part)}: {size:.2g} bytes, {free:.2g} are free")
        out = np.empty((*sizes, *array.shape[2:]), array.dtype)
        self.read_into(out, name, part, window)
        return out

    def strips(self, name: str, part: str) -> Iterator[Array]:
        """All of an array in strips of rows, of about `STRIP` bytes each; most arrays are one strip."""
        with self._naming(name, part):
            array = self._array(name, part)
        view = copy.copy(self)
        view.verify = False  # who looks through all of it compares what it likes
        rows = max(1, STRIP // max(1, array.nbytes // array.shape[0]))
        for top in range(0, array.shape[0], rows):
            window = slice(top, min(top + rows, array.shape[0])), slice(0, array.shape[1])
            yield view.part(name, part, window)

    def read_into(self, out: Array, name: str, part: str, window: Window | None = None) -> None:
        """Decode an array into existing memory, which has the stored dtype and the window's shape.

        A large array on disk is read by rows of blocks: read at once, Zarr would hold two more copies of it, compressed
        and decoded.
        """
        height, width = out.shape[:2]
        top, left = (0, 0) if window is None else (window[0].start or 0, window[1].start or 0)
        with self._naming(name, part):
            array = self._array(name, part)
            cuts = [top, top + height]
            # Not from object storage, where each further request waits for an answer.
            if out.nbytes >= LARGE and not is_url(self.path):
                edge = array.chunks[0]  # no block is decoded twice
                cuts[1:1] = range((top // edge + 1) * edge, top + height, edge)
            for first, last in pairwise(cuts):
                buffer = cpu.NDBuffer.from_numpy_array(out[first - top : last - top])
                array.get_basic_selection((slice(first, last), slice(left, left + width)), out=buffer)
            if (path := node(name, part)) not in self._verified:
                self._verify(out, self.record(name).checksums.get(part), array, path)

    def _verify(self, out: Array, written: str | None, array: Any, path: str) -> None:
        """Compare an array with its checksum, once: its values if all are read, else whether they are stored at all.

        Zarr gives zeros for a file that is missing, and stores an array of zeros as no file.

        Raises:
            ValueError: Other values were written, or the file is missing.
        """
        if written is None or not self.verify:
            return
        if out.shape == array.shape:
            if checksum(out) != written:
                raise ValueError(CHANGED if out.any() else MISSING)
        elif not self._is_stored(array, path) and checksum(np.zeros(array.shape, array.dtype)) != written:
            raise ValueError(MISSING)
        self._verified.add(path)

    def is_sound(self, name: str, part: str) -> None:
        """Say that the values of an array were compared with their checksum: reading it need not do so again."""
        self._verified.add(node(name, part))

    def _is_stored(self, array: Any, path: str) -> bool:
        # All blocks of an array are in one file.
        return holds(self.path, f"{path}/{array.metadata.encode_chunk_key((0,) * array.ndim)}")

    @contextmanager
    def _naming(self, name: str, part: str) -> Iterator[None]:
        """Turn what goes wrong while an array is read into an error that names the array."""
        # Outside of the `try`: a name that is unknown is no damage.
        self.record(name)
        try:
            yield
        except read_errors(self.path) as error:
            if is_refusal(error):
                raise
            self._looked = -math.inf
            if not self.is_unchanged():
                raise CompsegError(f"{self.path}: {REPLACED}; start again") from error
            raise CompsegError(
                f"{self.path}/{node(name, part)}: damaged or missing ({reason(error)}); "
                f"python -m compseg.check cohort={self.path} lists all damage, then prepare it again"
            ) from error

    def _array(self, name: str, part: str) -> ZarrArray[Any]:
        # zarr reads with threads, which a fork does not copy, so arrays opened before it are opened again.
        if self._pid != os.getpid():
            self._arrays, self._pid = {}, os.getpid()
        path = node(name, part)
        if path not in self._arrays:
            _refuse_pipes(self.path, f"{path}/zarr.json")
            array = zarr.open_array(open_store(self.path), path=path, mode="r", zarr_format=3)
            self._check(array, name, part)
            _refuse_pipes(self.path, f"{path}/{array.metadata.encode_chunk_key((0,) * array.ndim)}")
            self._arrays[path] = array
        return self._arrays[path]

    def _check(self, array: Any, name: str, part: str) -> None:
        """Compare an array with the table of samples before memory is taken for it: it may be a stranger's."""
        shape = self.record(name).shape
        if part == THUMBNAIL:
            shape = (*array.shape[:2], 3) if max(array.shape) <= MAX_SIDE else shape
        expected = {"image": (shape, self.dtype), THUMBNAIL: (shape, "uint8")}.get(part, (shape[:2], "bool"))
        if (found := (array.shape, str(array.dtype))) != expected:
            raise ValueError(f"{part} is {found[1]} {found[0]}, expected {expected[1]} {expected[0]}")

    def __getstate__(self) -> dict[str, Any]:
        # Open arrays stay behind: they are large to pickle, and of no use in another process.
        return {**self.__dict__, "_arrays": {}}


def read_attributes(where: Location) -> dict[str, Any] | None:
    """The `compseg` attribute of a Zarr v3 group; None if there is no group or it has none."""
    errors = read_errors(where)
    try:
        _refuse_pipes(where, "zarr.json")
        # The format is named, or zarr also asks for the files of format 2: more requests in object storage.
        attributes = zarr.open_group(open_store(where), mode="r", zarr_format=3).attrs.asdict()
    except errors as error:
        if is_refusal(error):
            raise
        return None
    found = attributes.get(ATTRIBUTE)
    return found if isinstance(found, dict) else None


def _refuse_pipes(where: Location, key: str) -> None:
    """Raise a ValueError where a file of a cohort is a pipe or a device, which may have no end, or never begin."""
    if isinstance(where, Path) and (problem := why_no_file(where / key)) not in ("", "does not exist"):
        raise ValueError(f"{Path(key).name} {problem}")


def _absent(where: Location) -> str:
    """Why there is nothing at a location, and what to do."""
    if isinstance(where, str):
        return f"no such cohort; make one with python -m compseg.prepare ... out=data/mine.zarr upload={where}"
    partial = partial_path(where)
    if partial.exists():
        return (
            f"its preparation was interrupted, {partial.name} is there; "
            "run the same prepare again, it continues where it stopped"
        )
    return (
        f"no such cohort; make one with python -m compseg.prepare source=images source.manifest=labels.csv out={where}"
    )
