"""Maps of new images, tile by tile: reading, computing and writing at the same time, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from rich.progress import Progress
from torch import Tensor

from compseg.errors import CompsegError
from compseg.file_names import printable
from compseg.files import atomic_npy, atomic_open, atomic_text, csv_text
from compseg.inference.images import NewImage, OpenImage, Reading
from compseg.inference.outputs import MAP_ENDINGS, MAPS, SPREAD, TABLE, released_if_empty, reserve
from compseg.inference.segmenter import Segmenter, activation_of
from compseg.inference.spread import Spread, spread_of
from compseg.inference.threshold import Threshold
from compseg.inference.tiling import Tile, receptive_field_of
from compseg.inputs import without_mask
from compseg.memory import give_back_freed
from compseg.plots.overlay import overlay
from compseg.samples import Image, Mask

LOG = logging.getLogger("compseg")
COLUMNS = ("sample", "area_fraction", "mean_activation", "tissue_pixels", "threshold")
UNSURE = "mean_spread"  # a column of predictions that map it
PICTURE_CHANNELS = 32  # of hundreds, enough for the grey picture under an overlay
T = TypeVar("T")


def predict(
    segmenter: Segmenter,
    images: Sequence[NewImage],
    out: Path,
    reading: Reading | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    overwrite: bool = False,
    uncertainty: bool = False,
) -> list[dict[str, Any]]:
    """Map every image and write `maps/NAME.npy`, overlay and mask PNGs, and `areas.csv`.

    Large images are mapped in tiles. While the network computes one tile the next is read, and while one image is
    computed the files of the previous one are written. Memory holds the network's input of one tile, the next tile, and
    the maps of two images. The table grows by one line per image.

    Args:
        segmenter: With a threshold.
        images: What to map.
        out: Folder, made if absent; see `outputs.reserve`.
        reading: How files are read; None: as those of the training cohort.
        tile: Largest side in pixels of what a tile sees; None: by memory, see `Segmenter.tiles`.
        overlap: Margin around a tile in pixels; None: the radius of the network's receptive field.
        overwrite: Whether to delete what another prediction has left in the folder.
        uncertainty: Whether to map how far activations differ as well, as `maps/NAME_spread.npy`: see `spread_of`.

    Returns:
        The rows of `areas.csv`.

    Raises:
        CompsegError: If the segmenter has no threshold, the folder holds another prediction, or an image is unreadable,
            of other channels or of another size than its mask. What was written for the images before it stays.
    """
    threshold = segmenter.threshold
    if threshold is None:
        raise CompsegError("segmenter: has no threshold yet; run compseg.evaluate on its run, or give threshold=0.5")
    reading = reading or Reading(segmenter.input)
    results = Results(out, threshold, reserve(out, segmenter, images, overwrite), uncertainty)
    if threshold.origin == "fallback":
        LOG.warning("threshold: %s", threshold.how)
    with (
        released_if_empty(out),
        # One thread: windows of a cohort lie in the same memory, each made from the one before.
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
        Progress(*Progress.get_default_columns(), transient=True) as progress,
    ):
        bar, writing = progress.add_task("predicting", total=len(images)), Future[None]()
        writing.set_result(None)
        for piece in _pieces(segmenter, images, reading, tile, overlap, reader):
            result = results.add(piece, segmenter)
            core, shape = piece.tile.core, piece.opened.shape
            progress.advance(bar, float(np.prod([(c.stop - c.start) / n for c, n in zip(core, shape, strict=False)])))
            if piece.last:
                writing.result()  # one image at a time waits to be written, and an error in writing it is raised here
                writing = writer.submit(results.write, result)
            del piece  # before the input of the next one is made, or there would be two at once
            give_back_freed()  # or the threads that read and write keep half a gigabyte
        writing.result()
    return results.rows


@dataclass
class Piece:
    """A tile that has been read.

    Attributes:
        opened: Its image.
        tile: Its place in the image.
        image: `(h, w, C)`, what the tile sees, in the segmenter's dtype; deleted once the network's input is made.
        tissue: `(h, w)` bool, likewise.
        picture: `(h, w)` or `(h, w, 3)`, what people are shown of its core.
        background: The spectrum that the network compares its pixels with; None: the tile's own.
        last: Whether it is the last tile of its image.
        given: The network's input, once it is made; None where there is no tissue.
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
        """Make the network's input and drop the image, whose memory the network needs."""
        if self.tissue.any():
            with _of_image(self.opened.new):
                self.given = segmenter.network_input(self.image, self.tissue, self.background)
        del self.image
        return self


def _pieces(
    segmenter: Segmenter,
    images: Sequence[NewImage],
    reading: Reading,
    side: int | None,
    overlap: int | None,
    reader: Executor,
) -> Iterator[Piece]:
    """All tiles of all images in order, ready for the network, which computes one while the next is read."""

    def readings() -> Iterator[Callable[[], Piece]]:
        told: set[str] = set()
        # Opened ahead as well, because Otsu's level takes a pass over the whole image.
        for opened in prefetched((partial(_opened, new, segmenter, reading, told) for new in images), reader):
            tiles = segmenter.tiles(opened.shape, side, overlap)
            if len(tiles) > 1 and (problem := receptive_field_of(segmenter.model).problem):
                image = printable(str(opened.new.path))
                LOG.warning(f"{image}: {len(tiles)} tiles, whose maps may differ at the seams: {problem}")
            with _of_image(opened.new):
                background = segmenter.background(tiles, partial(_read_tiles, opened, reader=reader))
            for tile in tiles:
                yield partial(_read, opened, tile, segmenter.dtype, background, tile is tiles[-1])

    # A tile is prepared before the next is read: side by side, preparing takes three times as long.
    return prefetched(readings(), reader, lambda piece: piece.prepare(segmenter))


def prefetched(
    calls: Iterable[Callable[[], T]], executor: Executor, ready: Callable[[T], T] = lambda result: result
) -> Iterator[T]:
    """The results of calls in order, made ready; while one is in use, the next call runs.

    An error is raised in its place, after the results of the calls before it.
    """
    remaining = iter(calls)
    waiting = _submit_next(remaining, executor)
    while waiting is not None:
        done = [ready(waiting.result())]
        waiting = _submit_next(remaining, executor)
        yield done.pop()  # so that what has been handed out is not held here


def _submit_next(calls: Iterator[Callable[[], T]], executor: Executor) -> Future[T] | None:
    """The next call, submitted; None where there is none."""
    try:
        return executor.submit(next(calls))
    except StopIteration:
        return None
    except CompsegError as error:
        # Raised here it would end the results before it, which are not handed out yet.
        failed = Future[T]()
        failed.set_exception(error)
        return failed


@contextmanager
def _of_image(new: NewImage) -> Iterator[None]:
    """Errors name the image."""
    try:
        yield
    except CompsegError as error:
        raise CompsegError(f"{new.path}: {error}") from error


def _opened(new: NewImage, segmenter: Segmenter, reading: Reading, told: set[str]) -> OpenImage:
    opened, adapted = new.open(reading).as_trained(segmenter)
    unmasked = without_mask(segmenter.input, segmenter.tissue_rule) if opened.tissue is None else ""
    for said in filter(None, (adapted, unmasked)):
        if said not in told:  # once for all images of which it is true
            LOG.warning(printable(f"{new.path}: {said}"))
        told.add(said)
    opened = opened.with_tissue(segmenter.tissue_rule).corrected(segmenter)
    with _of_image(new):
        segmenter.check(opened.shape)
    return opened


def _read_tiles(opened: OpenImage, tiles: Sequence[Tile], reader: Executor) -> Iterator[tuple[Tile, Image, Mask]]:
    return prefetched((partial(_read_tile, opened, tile) for tile in tiles), reader)


def _read_tile(opened: OpenImage, tile: Tile) -> tuple[Tile, Image, Mask]:
    assert opened.tissue is not None
    return tile, opened.image(tile.seen), opened.tissue(tile.seen)


def _read(opened: OpenImage, tile: Tile, dtype: str, background: Tensor | None, last: bool) -> Piece:
    _, raw, tissue = _read_tile(opened, tile)
    # A copy of what is in a mapped file, so that this thread waits for the disk and not the one that computes.
    image = np.array(raw, dtype, order="C") if isinstance(raw, np.memmap) else raw
    return Piece(opened, tile, image, tissue, _picture(raw[tile.inner]), background, last)


def _picture(image: Image) -> Image:
    """What people are shown of an image `(h, w, C)`: a photograph itself, else a mean over channels, float32."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(image)
    # Some channels, evenly spaced: the mean over hundreds takes as long as reading them.
    some = image[..., :: max(1, image.shape[2] // PICTURE_CHANNELS)]
    return np.asarray(some.mean(axis=2, dtype=np.float32))


@dataclass(frozen=True)
class Result:
    """The maps of an image, filled in tile by tile, each `(H, W)`; the picture may be in colour, `(H, W, 3)`."""

    opened: OpenImage
    activation: NDArray[np.float32]
    tissue: Mask
    picture: Image
    spread: Spread | None = None


class Results:
    """What prediction leaves in its folder.

    Args:
        out: The folder.
        threshold: The activation above which a pixel counts.
        files: What the files of each image are called.
        uncertainty: Whether to map the spread.

    Attributes:
        rows: Of `areas.csv`, so far; with a column `file` where that is not the name of each sample.
    """

    def __init__(self, out: Path, threshold: Threshold, files: Mapping[str, str], uncertainty: bool = False) -> None:
        self.out, self.threshold, self.files, self.uncertainty = out, threshold, files, uncertainty
        renamed = any(name != file for name, file in files.items())
        self.columns = (*COLUMNS, *[UNSURE] * uncertainty, *["file"] * renamed)
        self.rows: list[dict[str, Any]] = []
        self._result: Result | None = None

    def add(self, piece: Piece, segmenter: Segmenter) -> Result:
        """Map a piece; return the maps of its image, as far as they are filled in."""
        if (result := self._result) is None or result.opened is not piece.opened:
            # New arrays for each image: those of the one before are still being written.
            size, picture = piece.opened.shape[:2], piece.picture
            empty = np.zeros((*size, *picture.shape[2:]), picture.dtype)
            activation, *spread = (np.zeros(size, np.float32) for _ in range(1 + self.uncertainty))
            result = self._result = Result(piece.opened, activation, np.zeros(size, bool), empty, *spread)
        core, tissue = piece.tile.core, piece.tissue[inner := piece.tile.inner]
        if piece.given is not None:
            result.activation[core] = activation_of(segmenter.logits_of(piece.given, inner), tissue)
            if result.spread is not None:
                result.spread[core] = spread_of(segmenter, piece.given, tissue, inner)
        result.tissue[core], result.picture[core] = tissue, piece.picture
        return result

    def write(self, result: Result) -> None:
        """Write an image's maps, then its line of the table, which tells that the files are there."""
        name, thumbnail = result.opened.new.name, result.opened.thumbnail
        mask, file = self.threshold.apply(result.activation, result.tissue), self.files[name]
        write_map(self.out / MAPS, file, result.picture if thumbnail is None else thumbnail, result.activation, mask)
        if result.spread is not None:
            atomic_npy(self.out / MAPS / f"{file}{SPREAD}", result.spread)
        pixels = int(result.tissue.sum())
        row = {
            "sample": name,
            "area_fraction": round(float(mask.sum()) / max(pixels, 1), 6),
            "mean_activation": round(float(result.activation.sum()) / max(pixels, 1), 6),
            "tissue_pixels": pixels,
            "threshold": round(self.threshold.value, 6),
            UNSURE: 0.0 if result.spread is None else round(float(result.spread.sum()) / max(pixels, 1), 6),
            "file": file,
        }
        row = {column: row[column] for column in self.columns}
        table, line = self.out / TABLE, list(row.values())
        if not self.rows:
            atomic_text(table, csv_text(self.columns, [line]))
        else:  # appended: writing all of a long list again for each image would cost its square
            with table.open("a", newline="", encoding="utf-8", errors="backslashreplace") as lines:
                lines.write(csv_text(line))
        self.rows.append(row)


def write_map(folder: Path, name: str, picture: Image, activation: NDArray[np.float32], mask: Mask) -> list[Path]:
    """Write `NAME.npy` (activation, float32), `NAME.png` (overlay) and `NAME_mask.png` (0 / 255), each atomically.

    Args:
        folder: Made if absent.
        name: Of the files, as `file_names` has made it of the sample's.
        picture: The picture under the overlay, see `overlay`.
        activation: `(H, W)` in [0, 1].
        mask: `(H, W)` bool, above the threshold.

    Returns:
        The paths written.
    """
    paths = [folder / f"{name}{ending}" for ending in MAP_ENDINGS]
    atomic_npy(paths[0], activation)
    for path, pixels in zip(paths[1:], (overlay(picture, activation, mask), mask * np.uint8(255)), strict=True):
        with atomic_open(path) as file:
            Pictures.fromarray(pixels).save(file, "PNG")
    return paths
