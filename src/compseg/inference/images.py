"""New images to map: an image, a folder of images, a manifest without labels, or a cohort, read a window at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compseg.cohort import Cohort, is_url
from compseg.errors import CompsegError
from compseg.memory import ReusableBuffer
from compseg.preprocessing.tissue import otsu, tissue_mask
from compseg.samples import Image, Mask, Window
from compseg.sources.manifest import clean_name, read_manifest
from compseg.sources.readers import READERS, open_image, read_mask, read_picture

BLOCK = 64  # rows that are read at a time where a whole image has to be gone through


@dataclass(frozen=True)
class NewImage:
    """An image to map, opened when asked for.

    Attributes:
        name: What its files are called.
        path: Its file, or the folder or address of the cohort that holds it.
        tissue: Mask file, if one is given.
        thumbnail: Picture file, if one is given.
        cohort: Where it is read from instead of a file.
    """

    name: str
    path: str | Path
    tissue: Path | None = None
    thumbnail: Path | None = None
    cohort: Cohort | None = None

    def open(self, channels_first: bool = False) -> OpenImage:
        """The image, its pixels left on disk where its format allows (cohorts and .npy files).

        Args:
            channels_first: Whether .npy, .npz and .mat files hold `(C, H, W)`.

        Raises:
            CompsegError: If it is unreadable, or of another size than its mask.
        """
        if (cohort := self.cohort) is not None:
            return OpenImage(
                self,
                cohort.shape(self.name),
                Windows(cohort, self.name),
                lambda window: cohort.tissue(self.name, window),
                cohort.thumbnail(self.name),
            )
        image = open_image(Path(self.path), channels_first)
        tissue = read_mask(self.tissue) if self.tissue else None
        if tissue is not None and tissue.shape != image.shape[:2]:
            raise CompsegError(
                f"{self.tissue}: mask of {tissue.shape} for an image of {image.shape[:2]}; "
                "give a mask of the image's size"
            )
        return OpenImage(
            self,
            image.shape,
            self._reader(image, channels_first),
            None if tissue is None else lambda window: tissue[window],
            read_picture(self.thumbnail) if self.thumbnail else None,
        )

    def _reader(self, image: Image, channels_first: bool) -> Callable[[Window], Image]:
        if not isinstance(image, np.memmap):
            return lambda window: image[window]
        # Mapped anew for each window: what was read of a file counts as this process's memory while it stays mapped.
        return lambda window: open_image(Path(self.path), channels_first)[window]


@dataclass(frozen=True)
class OpenImage:
    """An image that is read a window at a time.

    Attributes:
        new: What it is.
        shape: `(H, W, C)`.
        image: Reads a window of the image, raw values.
        tissue: Reads a window of the tissue mask; None where none is given.
        thumbnail: A picture for people, None where there is none.
    """

    new: NewImage
    shape: tuple[int, ...]
    image: Callable[[Window], Image]
    tissue: Callable[[Window], Mask] | None
    thumbnail: NDArray[np.uint8] | None

    def with_tissue(self, rule: str) -> OpenImage:
        """The image with a tissue mask: its own, else by the rule.

        Otsu's level is one of the whole image, which is gone through once for it.
        """
        if self.tissue is not None:
            return self
        if rule == "otsu":
            mask = self._otsu_mask()
            return self._with(lambda window: mask[window])
        return self._with(lambda window: tissue_mask(self.image(window), rule))

    def _with(self, tissue: Callable[[Window], Mask]) -> OpenImage:
        return OpenImage(self.new, self.shape, self.image, tissue, self.thumbnail)

    def _otsu_mask(self) -> Mask:
        blocks = [(slice(start, start + BLOCK), slice(None)) for start in range(0, self.shape[0], BLOCK)]
        mean = np.concatenate([self.image(block).astype(np.float32).mean(axis=2) for block in blocks])
        return np.asarray(mean > otsu(mean))


class Windows:
    """A cohort's image, a window at a time; what the window before it held of it is moved and not decoded again.

    The tiles of a row share their margins: with the paper's U-Net a third of all that they see. All windows lie in the
    same memory, one after the other, unless one is held for longer.

    Args:
        cohort: Where it is read from.
        name: The sample.
    """

    def __init__(self, cohort: Cohort, name: str) -> None:
        self._cohort, self._name, self._shape = cohort, name, cohort.shape(name)
        self._room = ReusableBuffer(cohort.dtype)
        self._before: tuple[Window, Image] | None = None  # its pixels, until the next window takes their place

    def __call__(self, window: Window) -> Image:
        """Its pixels `(h, w, C)`, in the stored dtype."""
        rows, columns = (slice(*part.indices(size)[:2]) for part, size in zip(window, self._shape, strict=False))
        image = self._room.lend(shape := (rows.stop - rows.start, columns.stop - columns.start, self._shape[2]))
        known = self._move_known(image, rows, columns)
        if (first := columns.start + known) < columns.stop:
            self._cohort.read_into(image[:, known:], self._name, "image", (rows, slice(first, columns.stop)))
        self._before = (rows, columns), self._room.content(shape)
        if (rows.stop, columns.stop) == self._shape[:2]:  # the last tile: nobody may ask again
            self._room, self._before = ReusableBuffer(self._cohort.dtype), None
        return image

    def _move_known(self, image: Image, rows: slice, columns: slice) -> int:
        """Move what the window before holds of a window's first columns there; how many there are."""
        if self._before is None:
            return 0
        ((rows_before, columns_before), before), self._before = self._before, None
        if rows != rows_before or not columns_before.start <= columns.start < columns_before.stop:
            return 0
        first = columns.start - columns_before.start
        known: int = min(columns.stop, columns_before.stop) - columns.start
        # Both may lie in the same memory. Rows move up where they become shorter, so the first goes first; else down.
        places = range(len(image))
        for row in places if image.shape[1] <= before.shape[1] else reversed(places):
            image[row, :known] = before[row, first : first + known]
        return known


def new_images(path: str | Path) -> list[NewImage]:
    """What lies at a path: a cohort's samples, a manifest's rows, a folder's images, or one image.

    What lies at an address of object storage is a cohort.

    Raises:
        CompsegError: If there is nothing to map.
    """
    if is_url(path):
        return _of_cohort(path)
    path = Path(path)
    if path.is_dir():
        return _of_cohort(path) if (path / "zarr.json").is_file() else _of_folder(path)
    if not path.is_file():
        raise CompsegError(f"input={path}: does not exist; give an image, a folder of images, a manifest or a cohort")
    if path.suffix.lower() == ".csv":
        rows = read_manifest(path, labelled=False)
        return [
            NewImage(row.info.name, row.files["image"], row.files.get("tissue"), row.files.get("reference"))
            for row in rows
        ]
    return [NewImage(clean_name(path.stem), path)]


def _of_cohort(path: str | Path) -> list[NewImage]:
    cohort = Cohort.open(path)
    return [NewImage(info.name, path, cohort=cohort) for info in cohort.infos]


def _of_folder(path: Path) -> list[NewImage]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
    if not files:
        raise CompsegError(f"input={path}: no image in this folder; expected files ending in {', '.join(READERS)}")
    images = [NewImage(clean_name(file.stem), file) for file in files]
    names = [image.name for image in images]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise CompsegError(
            f"input={path}: {doubles[0]} is the name of more than one image; rename one, or give a manifest"
        )
    return images
