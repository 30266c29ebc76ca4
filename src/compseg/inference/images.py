"""New images to map: one image, a folder, a manifest without labels, or a cohort, read one window at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.axes import Alignment, align
from compseg.cohort import Cohort, is_url
from compseg.errors import CompsegError, require
from compseg.file_names import printable
from compseg.files import why_no_file
from compseg.inference.segmenter import Segmenter
from compseg.inputs import InputSpec, rescaling, seen_values
from compseg.memory import ReusableBuffer
from compseg.preprocessing.pipeline import short_name
from compseg.preprocessing.tissue import BY_LEVEL, level_of, mask_above, tissue_mask
from compseg.samples import Channels, Image, Mask, Window
from compseg.sources.envi import NUMBERS
from compseg.sources.manifest import read_manifest
from compseg.sources.ome_zarr import is_ome_zarr
from compseg.sources.readers import READERS, read_file, read_mask, read_picture, reader_of

LOG = logging.getLogger("compseg")
BLOCK = 64  # rows that are read at a time for Otsu's level, which needs the whole image


@dataclass(frozen=True)
class Reading:
    """How files of new images are read.

    Attributes:
        how: Their variables, and whether channels come first.
        axis: The channels of all images; None: what each file says.
        unit: Of an axis in a file that has no unit.
    """

    how: InputSpec = field(default_factory=InputSpec)
    axis: Channels | None = None
    unit: str = ""


@dataclass(frozen=True)
class Adaptation:
    """How images of some channels and scale become those that a segmenter was trained on.

    Attributes:
        align: Of channels.
        factor: Of values.
        said: What is done, and what may be wrong, in one line; empty where nothing is.
    """

    align: Alignment
    factor: float
    said: str

    @classmethod
    def of(
        cls,
        channels: Channels,
        values: tuple[str, float],
        segmenter: Segmenter,
        where: str,
        corrections: Sequence[Mapping[str, Any]] | None = None,
    ) -> Adaptation:
        """The one from these channels and values.

        Args:
            channels: Of the images.
            values: Their kind and high, see `inputs.seen_values`.
            segmenter: To map them with.
            where: Names them in messages.
            corrections: That their cohort was prepared with; None: they are files, and raw.

        Raises:
            CompsegError: There is none.
        """
        learned, before = list(segmenter.input.corrections), segmenter.input.channels
        require(
            corrections is None or list(corrections) == learned,
            f"{where}: its spectra were not corrected as those that the segmenter was trained on "
            f"({', '.join(map(short_name, learned)) or 'not at all'}); map its files instead, or prepare it so",
        )
        if corrections is None and before is not None:
            alignment, (factor, told) = align(channels, before, where), (1.0, "")  # raw and corrected values differ
        else:
            alignment, (factor, told) = (
                align(channels, segmenter.channels, where),
                rescaling(values, segmenter.input, where),
            )
        return cls(alignment, factor, "; ".join(filter(None, (alignment.said, told))))

    def __call__(self, image: Image) -> Image:
        """An image `(H, W, given)` as the segmenter takes it; the image itself where nothing is to be done."""
        aligned = self.align(image)
        return aligned if self.factor == 1 else np.multiply(aligned, np.float32(self.factor), dtype=np.float32)


@dataclass(frozen=True)
class NewImage:
    """An image to map, not yet opened.

    Attributes:
        name: As its file or sample is called; `file_names` makes names of files of it.
        path: Its file, or the folder or address of the cohort that holds it.
        tissue: Mask file, if there is one.
        thumbnail: Picture file, if there is one.
        cohort: The cohort to read it from instead of a file.
    """

    name: str
    path: str | Path
    tissue: Path | None = None
    thumbnail: Path | None = None
    cohort: Cohort | None = None

    def open(self, reading: Reading = Reading()) -> OpenImage:
        """Open the image; its pixels stay on disk where the format allows it, see `sources.readers.read_file`.

        Args:
            reading: How files are read; a cohort needs none.

        Raises:
            CompsegError: If it is unreadable, or its mask has another size.
        """
        if (cohort := self.cohort) is not None:
            return OpenImage(
                self,
                cohort.shape(self.name),
                Windows(cohort, self.name),
                lambda window: cohort.tissue(self.name, window),
                cohort.thumbnail(self.name),
                cohort.channels,
                (cohort.input.kind, cohort.input.high),
            )
        how, path = reading.how, Path(self.path)
        file = read_file(path, how, reading.unit, mapped=True)
        image, key = file.image, how.keys.get("tissue")
        place = self.tissue or (path if key else None)
        tissue = read_mask(place, key) if place else None
        if tissue is not None and tissue.shape != image.shape[:2]:
            raise CompsegError(
                f"{place}: mask of {tissue.shape} for an image of {image.shape[:2]}; give a mask of the image's size"
            )

        def window_of(window: Window) -> Image:
            # A file is mapped again for each window: pages that were read count as our memory while it stays mapped.
            mapped = isinstance(image, np.memmap)
            return (read_file(path, how, reading.unit, mapped=True).image if mapped else image)[window]

        return OpenImage(
            self,
            image.shape,
            window_of,
            None if tissue is None else lambda window: tissue[window],
            read_picture(self.thumbnail) if self.thumbnail else file.thumbnail,
            reading.axis or file.channels,
            seen_values(image, tissue),
        )


@dataclass(frozen=True)
class OpenImage:
    """An image that is read one window at a time.

    Attributes:
        new: Where it came from.
        shape: `(H, W, C)`.
        image: Reads a window of the image, raw values.
        tissue: Reads a window of the tissue mask; None where there is none.
        thumbnail: A picture for people; None where there is none.
        channels: Its channels.
        values: Kind and high of its values, see `inputs.seen_values`.
    """

    new: NewImage
    shape: tuple[int, ...]
    image: Callable[[Window], Image]
    tissue: Callable[[Window], Mask] | None
    thumbnail: NDArray[np.uint8] | None
    channels: Channels
    values: tuple[str, float]

    def as_trained(self, segmenter: Segmenter) -> tuple[OpenImage, str]:
        """The image with the segmenter's channels and on its scale, and what was done for that, in one line.

        Raises:
            CompsegError: It cannot be done.
        """
        cohort, expected = self.new.cohort, segmenter.channels
        if cohort is None and segmenter.input.channels is not None:
            expected = segmenter.input.channels
        if not self.channels.spectral and not self.channels.names:
            require(self.shape[2] == expected.count, f"{self.new.path}: {segmenter.mismatch(self.shape)}")
        corrections = None if cohort is None else cohort.input.corrections
        adapt = Adaptation.of(self.channels, self.values, segmenter, str(self.new.path), corrections)
        shape = (*self.shape[:2], expected.count)
        aligned = replace(self, shape=shape, channels=expected, image=lambda window: adapt(self.image(window)))
        return aligned, adapt.said

    def corrected(self, segmenter: Segmenter) -> OpenImage:
        """The image with its tissue corrected as the training cohort was when it was prepared; of a cohort it is so."""
        if self.new.cohort is not None or not segmenter.input.corrections:
            return self
        tissue = self.tissue
        assert tissue is not None
        shape = (*self.shape[:2], segmenter.channels.count)
        return replace(self, shape=shape, image=lambda window: segmenter.correct(self.image(window), tissue(window)))

    def with_tissue(self, rule: str) -> OpenImage:
        """The image with a tissue mask: its own, else by the rule.

        Otsu's threshold depends on the whole image, which is read once for it, a block of rows at a time.
        """
        if self.tissue is not None:
            return self
        if rule not in BY_LEVEL:
            return replace(self, tissue=lambda window: tissue_mask(self.image(window), rule))
        blocks = [(slice(start, start + BLOCK), slice(None)) for start in range(0, self.shape[0], BLOCK)]
        # A level for each tile would cut the same tissue differently on both sides of a seam.
        mask = mask_above(np.concatenate([level_of(self.image(block), rule, self.channels) for block in blocks]), rule)
        return replace(self, tissue=lambda window: mask[window])


class Windows:
    """Windows of a cohort's image. Columns that the previous window also held are moved and not decoded again.

    Tiles in a row overlap by their margins: with the paper's U-Net a third of all that they see. All windows use the
    same memory, one after the other, unless a caller keeps one.

    Args:
        cohort: The cohort to read from.
        name: The sample.
    """

    def __init__(self, cohort: Cohort, name: str) -> None:
        self._cohort, self._name, self._shape = cohort, name, cohort.shape(name)
        self._buffer = ReusableBuffer(cohort.dtype)
        self._previous: tuple[Window, Image] | None = None  # its pixels stay valid until the next window replaces them

    def __call__(self, window: Window) -> Image:
        """The pixels `(h, w, C)` of a window, in the stored dtype."""
        # Negative and open ends become plain numbers, so that windows can be compared.
        rows, columns = (slice(*part.indices(size)[:2]) for part, size in zip(window, self._shape, strict=False))
        image = self._buffer.lend(shape := (rows.stop - rows.start, columns.stop - columns.start, self._shape[2]))
        known = self._move_known(image, rows, columns)
        if (first := columns.start + known) < columns.stop:
            self._cohort.read_into(image[:, known:], self._name, "image", (rows, slice(first, columns.stop)))
        self._previous = (rows, columns), self._buffer.content(shape)
        if (rows.stop, columns.stop) == self._shape[:2]:  # probably the last tile: the memory is freed
            self._buffer, self._previous = ReusableBuffer(self._cohort.dtype), None
        return image

    def _move_known(self, image: Image, rows: slice, columns: slice) -> int:
        """Copy the first columns from the previous window as far as it holds them, and return their number."""
        if self._previous is None:
            return 0
        ((previous_rows, previous_columns), previous), self._previous = self._previous, None
        if rows != previous_rows or not previous_columns.start <= columns.start < previous_columns.stop:
            return 0
        first = columns.start - previous_columns.start
        known: int = min(columns.stop, previous_columns.stop) - columns.start
        # Both may be in the same memory. Where rows become shorter they move towards its start, so the first row has
        # to be copied first, or it would overwrite others; where they become longer, the last.
        order = range(len(image))
        for row in order if image.shape[1] <= previous.shape[1] else reversed(order):
            image[row, :known] = previous[row, first : first + known]
        return known


def new_images(path: str | Path) -> list[NewImage]:
    """The images at a path: a cohort's samples, a manifest's rows, a folder's images, or one image.

    An address of object storage is that of a cohort.

    Raises:
        CompsegError: If there is nothing to map.
    """
    problem = "" if is_url(path) else why_no_file(Path(path))
    is_folder = problem == "is a folder"
    if is_folder and is_ome_zarr(Path(path)):
        return [NewImage(Path(path).stem, path)]
    # Before folders of images: a cohort is a folder too, in which no image would be found.
    if is_url(path) or (is_folder and (Path(path) / "zarr.json").is_file()):
        cohort = Cohort.open(path)
        return [NewImage(info.name, path, cohort=cohort) for info in cohort.infos]
    path = Path(path)
    if is_folder:
        return _images_in(path)
    if problem:
        raise CompsegError(f"input={path!s:.200}: {problem}; give an image, a folder of images, a manifest or a cohort")
    if path.suffix.lower() == ".csv":
        rows = read_manifest(path, labelled=False)
        return [
            NewImage(row.info.name, row.files["image"], row.files.get("tissue"), row.files.get("reference"))
            for row in rows
        ]
    return [NewImage(path.stem, path)]


def _images_in(path: Path) -> list[NewImage]:
    # Hidden files are not the user's images: macOS leaves a `._a.png` beside each a.png on other file systems.
    shown = _without_companions(sorted(file for file in path.iterdir() if reader_of(file) and file.name[0] != "."))
    problems = {file: why_no_file(file) for file in shown if not is_ome_zarr(file)}
    for file in filter(problems.get, shown):
        LOG.warning(f"{printable(str(file))}: {problems[file]}; skipped")
    files = [file for file in shown if not problems.get(file)]
    if not files:
        raise CompsegError(f"input={path}: no image in this folder; expected files ending in {', '.join(READERS)}")
    images = [NewImage(file.stem, file) for file in files]
    names = [image.name for image in images]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise CompsegError(
            f"input={path}: {doubles[0]} is the name of more than one image; rename one, or give a manifest"
        )
    return images


# The files of one measurement, the one that leads to all of it first.
LEADING = (".dmt", ".bsp", ".hdr", ".seq", ".dms", ".dat", *NUMBERS)


def _without_companions(files: list[Path]) -> list[Path]:
    """Files of which none is only a part of another one's image: `a.dat` beside `a.hdr`."""
    leading: dict[str, Path] = {}
    for file in sorted(
        files, key=lambda file: LEADING.index(suffix) if (suffix := file.suffix.lower()) in LEADING else 0
    ):
        if file.suffix.lower() in LEADING:
            leading.setdefault(file.stem.casefold(), file)
    return [file for file in files if file.suffix.lower() not in LEADING or file in leading.values()]
