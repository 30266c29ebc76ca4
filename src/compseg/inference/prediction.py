"""Maps of new images, tile by tile: reading, computing and writing at the same time, in bounded memory."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from compseg.errors import CompsegError
from compseg.files import atomic_text, csv_text
from compseg.inference.images import NewImage, OpenImage
from compseg.inference.segmenter import Segmenter, activation_of
from compseg.inference.threshold import Threshold
from compseg.inference.tiling import Tile, receptive_field_of
from compseg.inference.writer import write_map
from compseg.memory import give_back_freed
from compseg.samples import Image, Mask

LOG = logging.getLogger("compseg")
COLUMNS = ("sample", "area_fraction", "mean_activation", "tissue_pixels", "threshold")
PICTURE_CHANNELS = 32
T = TypeVar("T")


def predict(
    segmenter: Segmenter,
    images: Sequence[NewImage],
    out: Path,
    channels_first: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
) -> list[dict[str, Any]]:
    """Map every image and write `maps/NAME.npy`, overlay and mask PNGs, and `areas.csv`.

    Large images are mapped in tiles. While the network computes one tile the next is read, and while one image is
    computed the files of the one before it are written. In memory are the network's input of one tile, the next tile,
    and the maps of two images. The table grows by a line an image.

    Args:
        segmenter: With a threshold.
        images: What to map.
        out: Folder, made if absent.
        channels_first: Whether .npy, .npz and .mat files hold `(C, H, W)`.
        tile: Largest side in pixels of what a tile sees; None: by memory, see `Segmenter.tiles`.
        overlap: Margin around a tile in pixels; None: as far as the network sees.

    Returns:
        The rows of `areas.csv`.

    Raises:
        CompsegError: If the segmenter has no threshold, or an image is unreadable, of other channels or of another size
            than its mask. What was written for the images before it stays.
    """
    threshold = segmenter.threshold
    if threshold is None:
        raise CompsegError("segmenter: has no threshold yet; run compseg.evaluate on its run, or give threshold=0.5")
    results = Results(out, threshold)
    with (
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
        Progress(*Progress.get_default_columns(), transient=True) as progress,
    ):
        shown, writing = progress.add_task("predicting", total=len(images)), Future[None]()
        writing.set_result(None)
        for piece in _pieces(segmenter, images, channels_first, tile, overlap, reader):
            result = _into(results.begun(piece), segmenter, piece)
            progress.advance(shown, _share(piece))
            if piece.last:
                writing.result()  # one image at a time waits to be written, and its fault is raised here
                writing = writer.submit(results.write, result)
            del piece  # before the next one's input is made, with which there would be two
            give_back_freed()  # else the reader and the writer would keep half a gigabyte
        writing.result()
    return results.rows


@dataclass
class Piece:
    """A tile that has been read.

    Attributes:
        opened: The image that it is of.
        tile: Where it lies.
        image: `(h, w, C)`, what the tile sees, in the segmenter's dtype; deleted once the network has its input.
        tissue: `(h, w)` bool, likewise.
        given: The network's input, once it is made; None where there is no tissue.
        picture: `(h, w)` or `(h, w, 3)`, what people are shown of its core.
        background: What the network is to compare its pixels with; None: with its own.
        last: Whether it is the last one of its image.
    """

    opened: OpenImage
    tile: Tile
    image: Image
    tissue: Mask
    picture: Image
    background: Tensor | None
    last: bool
    given: Tensor | None = None

    def prepare(self, segmenter: Segmenter) -> Piece:
        """Make the network's input of the image, which is as large as half of it: the network needs the room."""
        try:
            if self.tissue.any():
                self.given = segmenter.network_input(self.image, self.tissue, self.background)
        except CompsegError as error:
            raise CompsegError(f"{self.opened.new.path}: {error}") from error
        del self.image
        return self


def _pieces(
    segmenter: Segmenter,
    images: Sequence[NewImage],
    channels_first: bool,
    side: int | None,
    overlap: int | None,
    reader: Executor,
) -> Iterator[Piece]:
    """All tiles of all images in order, ready for the network, which computes one while the next is read."""

    def readings() -> Iterator[Callable[[], Piece]]:
        for opened in ahead((partial(_opened, new, segmenter, channels_first) for new in images), reader):
            tiles = segmenter.tiles(opened.shape, side, overlap)
            _warn_of_seams(opened, tiles, segmenter)
            background = _background(opened, tiles, segmenter, reader)
            for tile in tiles:
                yield partial(_read, opened, tile, segmenter.dtype, background, tile is tiles[-1])

    # Made before the next is read: with that beside it, it takes three times as long.
    return ahead(readings(), reader, lambda piece: piece.prepare(segmenter))


def ahead(
    calls: Iterable[Callable[[], T]], executor: Executor, ready: Callable[[T], T] = lambda result: result
) -> Iterator[T]:
    """The results of calls in order, made ready; then, while one is in use, the next one is called.

    A fault is raised in its place, after the results of the calls before it.
    """
    remaining = iter(calls)
    waiting = _begun(remaining, executor)
    while waiting is not None:
        done = [ready(waiting.result())]
        waiting = _begun(remaining, executor)
        yield done.pop()  # so that what has been handed out is not held here


def _begun(calls: Iterator[Callable[[], T]], executor: Executor) -> Future[T] | None:
    """The next call, begun; None where there is none."""
    try:
        return executor.submit(next(calls))
    except StopIteration:
        return None
    except CompsegError as error:
        failed = Future[T]()
        failed.set_exception(error)
        return failed


def _opened(new: NewImage, segmenter: Segmenter, channels_first: bool) -> OpenImage:
    opened = new.open(channels_first).with_tissue(segmenter.tissue_rule)
    try:
        segmenter.check(opened.shape)
    except CompsegError as error:
        raise CompsegError(f"{new.path}: {error}") from error
    return opened


def _background(opened: OpenImage, tiles: Sequence[Tile], segmenter: Segmenter, reader: Executor) -> Tensor | None:
    """What the whole image's pixels are compared with, where its tiles cannot tell; it takes two readings."""

    def read(tile: Tile) -> tuple[Tile, Image, Mask]:
        assert opened.tissue is not None
        return tile, opened.image(tile.seen), opened.tissue(tile.seen)

    try:
        return segmenter.background(tiles, lambda: ahead((partial(read, tile) for tile in tiles), reader))
    except CompsegError as error:
        raise CompsegError(f"{opened.new.path}: {error}") from error


def _warn_of_seams(opened: OpenImage, tiles: Sequence[Tile], segmenter: Segmenter) -> None:
    if len(tiles) > 1 and (fault := receptive_field_of(segmenter.model).fault):
        LOG.warning(f"{opened.new.path}: {len(tiles)} tiles, whose maps may not fit at the seams: {fault}")


def _read(opened: OpenImage, tile: Tile, dtype: str, background: Tensor | None, last: bool) -> Piece:
    assert opened.tissue is not None
    raw = opened.image(tile.seen)
    # A copy of what lies in a mapped file: the disk is waited for here and not where the tile is used.
    image = np.array(raw, dtype, order="C") if isinstance(raw, np.memmap) else raw
    return Piece(opened, tile, image, opened.tissue(tile.seen), _picture(raw[tile.inner]), background, last)


def _picture(image: Image) -> Image:
    """What people are shown of an image `(h, w, C)`: a photograph as it is, else a mean over channels, float32.

    Some channels, evenly spaced, are enough for that; the mean over hundreds takes as long as the reading.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(image)
    some = image[..., :: max(1, image.shape[2] // PICTURE_CHANNELS)]
    return np.asarray(some.mean(axis=2, dtype=np.float32))


@dataclass(frozen=True)
class Result:
    """The maps of an image, filled in tile by tile, each `(H, W)`; the picture may have colours."""

    opened: OpenImage
    activation: NDArray[np.float32]
    tissue: Mask
    picture: Image

    @classmethod
    def empty(cls, piece: Piece) -> Result:
        """Maps of the size of a piece's image."""
        size, colours = piece.opened.shape[:2], piece.picture.shape[2:]
        picture = np.zeros((*size, *colours), piece.picture.dtype)
        return cls(piece.opened, np.zeros(size, np.float32), np.zeros(size, bool), picture)


def _into(result: Result, segmenter: Segmenter, piece: Piece) -> Result:
    core, tissue = piece.tile.core, piece.tissue[inner := piece.tile.inner]
    if piece.given is not None:
        result.activation[core] = activation_of(segmenter.logits_of(piece.given, inner), tissue)
    result.tissue[core], result.picture[core] = tissue, piece.picture
    return result


def _share(piece: Piece) -> float:
    core, shape = piece.tile.core, piece.opened.shape
    return float(np.prod([(part.stop - part.start) / size for part, size in zip(core, shape, strict=False)]))


class Results:
    """What prediction leaves in its folder.

    Args:
        out: The folder.
        threshold: The activation above which a pixel counts.

    Attributes:
        rows: Of `areas.csv`, so far.
    """

    def __init__(self, out: Path, threshold: Threshold) -> None:
        self.out, self.threshold = out, threshold
        self.rows: list[dict[str, Any]] = []
        self._result: Result | None = None

    def begun(self, piece: Piece) -> Result:
        """The maps of a piece's image, begun if they are not."""
        if self._result is None or self._result.opened is not piece.opened:
            self._result = Result.empty(piece)
        return self._result

    def write(self, result: Result) -> None:
        """Write an image's maps, then its line of the table: a line says that the files are there."""
        name, thumbnail = result.opened.new.name, result.opened.thumbnail
        mask = self.threshold.apply(result.activation, result.tissue)
        write_map(self.out / "maps", name, result.picture if thumbnail is None else thumbnail, result.activation, mask)
        pixels = int(result.tissue.sum())
        self._add(
            {
                "sample": name,
                "area_fraction": round(float(mask.sum()) / max(pixels, 1), 6),
                "mean_activation": round(float(result.activation.sum()) / max(pixels, 1), 6),
                "tissue_pixels": pixels,
                "threshold": round(self.threshold.value, 6),
            }
        )

    def _add(self, row: dict[str, Any]) -> None:
        table, line = self.out / "areas.csv", [row[column] for column in COLUMNS]
        if not self.rows:
            atomic_text(table, csv_text(COLUMNS, [line]))
        else:  # written anew each time, a long list would cost its square
            with table.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(line)
        self.rows.append(row)
