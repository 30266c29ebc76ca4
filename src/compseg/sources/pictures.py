"""Pictures as tools write them: TIFF, PNG, JPEG and BMP, the right way up, the same for every compression.

TIFF is read by tifffile with imagecodecs and by nothing else, because two readers would disagree about depth, colours
and orientation. docs/reference/files.md lists what is understood and what is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from compseg.errors import CompsegError, reading
from compseg.memory import require_memory
from compseg.samples import Channels
from compseg.sources.on_disk import OnDisk

Array = NDArray[Any]

# Pillow refuses 179 million pixels, which a scanned slide has; `require_memory` refuses what does not fit.
Image.MAX_IMAGE_PIXELS = None

ORIENTATION, PHOTOMETRIC_TAG, NO_DATA = 274, 262, 42113
LARGE = 2**28  # bytes from which on a TIFF stays on disk where only parts of it are asked for
ALPHA = (1, 2)  # kinds of extra samples in a TIFF: with colours multiplied by it, and without
BESIDE = ("thumbnail", "label", "macro", "map")  # what slide scanners store beside the slide
# Size, depth, compression, places, order, colours and description of the pixels; an unknown orientation is upright.
NEEDED = {256, 257, 258, 259, 262, 266, 270, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339}
EXPLAINED = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)


@dataclass(frozen=True)
class Pixels:
    """What a file holds.

    Attributes:
        values: `(H, W)` or `(H, W, C)`; indices where there is a palette.
        palette: `(n, 3)` uint8, the colour of each index; None where values are values.
        opaque: `(H, W)` bool, False where a picture is wholly transparent; None where it says nothing about it.
        lossy: Whether it was compressed as JPEG.
        channels: The channels, where the file says what they are.
        thumbnail: `(h, w, 3)` uint8, the instrument's picture of the place; None where there is none.
    """

    values: Array
    palette: NDArray[np.uint8] | None = None
    opaque: NDArray[np.bool_] | None = None
    lossy: bool = False
    channels: Channels | None = None
    thumbnail: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.palette is not None and (self.values.dtype.kind != "u" or self.values.max() >= len(self.palette)):
            raise ValueError(f"index {self.values.max():g} of a palette of {len(self.palette)} colours")

    @property
    def coloured(self) -> Array:
        """The values, with colours in place of indices."""
        return self.values if self.palette is None else self.palette[self.values]


def read_tiff(path: Path, key: str | None = None) -> Pixels:
    """The one image of a TIFF; its pages, planes or samples are the channels."""
    del key
    # By itself tifffile also reads the other files that the description of an OME-TIFF may name.
    with _damage_is_an_error() as refuse_damage, tifffile.TiffFile(path, _multifile=False) as file:
        series = whole_image(path, file)
        page, others = series.keyframe, [axis for axis in series.axes if axis not in "YX"]
        if len(others) > 1 or not {"Y", "X"} <= set(series.axes):
            raise CompsegError(
                f"{path}: expected rows, columns and one channel axis, found {series.axes} {series.shape}; "
                "save (C, H, W)"
            )
        refuse_damage()  # now too: a false height would decode a million strips that are not there
        if any(page is None or not all((*page.dataoffsets, *page.databytecounts)) for page in series.pages):
            raise CompsegError(f"{path}: a part of its pixels is missing; save it without leaving empty parts out")
        names = _channel_names(file) if others == ["C"] else ()
        if series.nbytes > LARGE and _as_stored(page):
            number, order = file.series.index(series), [series.axes.index(axis) for axis in ("Y", "X", *others)]
            image = OnDisk(path, lambda: level_of(path, 0, number), order)
            known = len(names) == image.shape[2]
            return Pixels(cast(Array, image), channels=Channels(len(names), names=names) if known else None)
        require_memory(path, series.shape, series.dtype)
        array = np.asarray(series.asarray())
        if others:
            array = np.moveaxis(array, series.axes.index(others[0]), -1)
        opaque = None
        if others == ["S"] and (alphas := _alphas(page, array.shape[-1])):
            opaque = array[..., alphas[0]] != 0
            array = np.delete(array, alphas, axis=-1)
            array = array[..., 0] if array.shape[-1] == 1 else array
        orientation = page.tags.valueof(ORIENTATION, 1)
        values = upright(_as_shown(path, file, page, array), orientation)
        palette = _colour_map(page) if page.photometric == PHOTOMETRIC.PALETTE else None
        opaque = None if opaque is None else upright(opaque, orientation)
        channels = Channels(len(names), names=names) if len(names) == values.shape[-1] else None
        return Pixels(values, palette, opaque, page.compression == COMPRESSION.JPEG, channels)


def _as_stored(page: tifffile.TiffPage) -> bool:
    """Whether the numbers of a page mean what they are, so that any window can be read by itself."""
    plain = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB) and page.tags.valueof(NO_DATA) is None
    return plain and not page.extrasamples and page.tags.valueof(ORIENTATION, 1) == 1 and page.dtype != bool


def level_of(path: Path, level: int, series: int = 0) -> Any:
    """A level of a TIFF's image, whose tiles are decoded when they are read."""
    with reading(path, "copy it again"):
        store = tifffile.imread(path, aszarr=True, series=series, level=level, _multifile=False)
        return zarr.open_array(store, mode="r")


def _channel_names(file: tifffile.TiffFile) -> tuple[str, ...]:
    """What the description of an OME-TIFF calls its channels; none where one has no name, or a name comes twice."""
    if not file.is_ome or len(description := file.ome_metadata or "") > 2**22 or "<!ENTITY" in description:
        return ()
    found = [
        node.get("Name", "") for node in ElementTree.fromstring(description).iter() if node.tag.endswith("}Channel")
    ]
    return tuple(found) if all(found) and len(set(found)) == len(found) else ()


@contextmanager
def _damage_is_an_error() -> Iterator[Callable[[], None]]:
    """Raise what tifffile only logs, because it reads zeros in place of what is missing; but for tags without meaning.

    Yields:
        Raises at once if something was said so far.

    Raises:
        ValueError: What tifffile says first.
    """
    said: list[str] = []
    handler, logger = logging.Handler(), tifffile.logger()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]

    def refuse_damage() -> None:
        for message in said:
            tag = re.search(r"TiffTag (\d+) @", message)
            if "GDAL_NODATA" not in message and (tag is None or int(tag[1]) in NEEDED):
                raise ValueError(message)

    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield refuse_damage
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
    refuse_damage()


def whole_image(path: Path, file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The series that is no thumbnail, mask or label of another one."""
    offsets: set[int] = set()
    for page in file.pages:  # tifffile itself would follow a circle of pages for ever
        if page.offset in offsets:
            raise ValueError("its pages form a circle")
        offsets.add(page.offset)
    found = [
        series
        for series in file.series
        if not (series.keyframe.is_reduced or series.keyframe.is_mask or series.name.lower() in BESIDE)
    ]
    if file.is_ome and any(series.kind != "ome" for series in found):
        raise CompsegError(f"{path}: its OME description names other files; save all channels in one file")
    if len(found) != 1:
        shapes = ", ".join(str(series.shape) for series in found[:4])
        raise CompsegError(f"{path}: {len(found)} images in one file ({shapes}); save the one to read in its own file")
    return found[0]


def _alphas(page: tifffile.TiffPage, samples: int) -> list[int]:
    """Positions of the samples that the file calls transparency; a fourth sample that it does not is a channel."""
    extra = page.extrasamples
    return [samples - len(extra) + place for place, kind in enumerate(extra) if kind in ALPHA]


def _as_shown(path: Path, file: tifffile.TiffFile, page: tifffile.TiffPage, array: Array) -> Array:
    """Values as a viewer shows them: a larger one is brighter."""
    shown = page.photometric if PHOTOMETRIC_TAG in page.tags else PHOTOMETRIC.MINISBLACK
    # Of all compressions JPEG alone is decoded to red, green and blue.
    if shown not in EXPLAINED and not (shown == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG):
        raise CompsegError(f"{path}: {PHOTOMETRIC(shown).name} colours are not read exactly; save it as RGB or grey")
    # The tag itself, because tifffile's `nodata` is 0 where it cannot convert the text.
    mark = page.tags.valueof(NO_DATA)
    if mark is not None and (missing := np.count_nonzero(array == float(mark))):
        raise CompsegError(
            f"{path}: {missing} values are the file's mark for 'no data', {mark}; "
            "set them to 0 and mask their pixels out of the tissue"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    # ImageJ's inverted look-up table changes what it shows, and not the values that it measures.
    if shown != PHOTOMETRIC.MINISWHITE or file.is_imagej:
        return array
    if array.dtype.kind != "u":
        raise CompsegError(f"{path}: {array.dtype} with white as zero has no meaning; save it with black as zero")
    return np.asarray(array.dtype.type(2**page.bitspersample - 1 if page.bitspersample > 1 else 255) - array)


def _colour_map(page: tifffile.TiffPage) -> NDArray[np.uint8]:
    colours = np.asarray(page.colormap).T
    # The standard says 16 bits; some programs write 8.
    return np.asarray(colours >> 8 if colours.max() > 255 else colours, np.uint8)


def read_pillow(path: Path, key: str | None = None) -> Pixels:
    """PNG, JPEG or BMP: grey stays grey and 16 bits stay 16 bits."""
    del key
    # By content, not by suffix: a TIFF that is called .png would be read by Pillow's reader.
    with Image.open(path, formats=("PNG", "JPEG", "BMP", "DIB")) as picture:
        if picture.format == "PNG" and (frames := getattr(picture, "n_frames", 1)) > 1:
            raise CompsegError(f"{path}: {frames} pictures in one file; save the one to read in its own file")
        if picture.format == "PNG":
            with Image.open(path, formats=("PNG",)) as same:
                same.verify()  # its checksums, which Pillow does not look at when it reads pixels
        bands = len(picture.getbands())
        require_memory(path, (picture.height, picture.width, bands), np.int32 if picture.mode in "IF" else np.uint8)
        if deep := picture.format == "PNG" and _is_deep_colour(path):
            import imagecodecs

            # Pillow would silently drop the lower eight bits.
            array = imagecodecs.png_decode(path.read_bytes())
            mode = {2: "LA", 3: "RGB", 4: "RGBA"}[array.shape[2]]
        else:
            array, mode = np.asarray(picture), picture.mode
        if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "F") and not mode.startswith("I;16"):
            raise CompsegError(f"{path}: {mode} colours are not read exactly; save it as RGB or grey")
        array = array.astype(np.uint8) * 255 if array.dtype == bool else array
        opaque = _opaque(picture, array, mode, deep)
        values = array[..., 0] if mode in ("LA", "PA") else array[..., :3] if mode == "RGBA" else array
        colours = picture.getpalette("RGB") if mode[0] == "P" else None
        palette = None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)
        orientation = picture.getexif().get(ORIENTATION, 1)
        opaque = None if opaque is None else upright(opaque, orientation)
        return Pixels(upright(values, orientation), palette, opaque, picture.format in ("JPEG", "MPO"))


def _is_deep_colour(path: Path) -> bool:
    """Whether a PNG has 16 bits in each of several samples."""
    with path.open("rb") as file:
        *_, depth, colour = file.read(26)
    return depth == 16 and colour != 0


def _opaque(picture: Image.Image, array: Array, mode: str, deep: bool) -> NDArray[np.bool_] | None:
    if mode in ("LA", "PA", "RGBA"):
        return np.asarray(array[..., -1] != 0)
    clear = picture.info.get("transparency")  # a colour or an index that is transparent, or the opacity of each index
    if clear is None or deep:
        return None
    if isinstance(clear, bytes):
        opacity = np.frombuffer(clear.ljust(256, b"\xff"), np.uint8)
        return np.asarray(opacity[array] != 0)
    different = array != np.asarray(clear)
    return np.asarray(different if array.ndim == 2 else different.any(axis=2))


def upright(array: Array, orientation: int) -> Array:
    """Rows from the top and columns from the left, given tag 274 of TIFF and EXIF; unknown values count as 1."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array[::-1] if orientation in (3, 4, 7, 8) else array
