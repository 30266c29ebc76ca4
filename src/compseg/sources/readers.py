"""One reader for each file format: from a path to an array with the numbers of the file.

To add a format, write a function `(path, key) -> Pixels or array` and name its suffixes in `READERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.axes import spectral
from compseg.errors import CompsegError, is_refusal
from compseg.inputs import InputSpec
from compseg.samples import Channels, Mask
from compseg.sources.arrays import map_npy, read_mat, read_npy, read_npz
from compseg.sources.envi import NUMBERS, read_envi
from compseg.sources.hdf5 import read_hdf5, read_ptir
from compseg.sources.instruments import INSTRUMENTS, read_instrument
from compseg.sources.masks import Labels, labels_of, mask_of
from compseg.sources.ome_zarr import read_ome_zarr
from compseg.sources.on_disk import OnDisk
from compseg.sources.pictures import Pixels, read_pillow, read_tiff

Array = NDArray[Any]
PLAIN = InputSpec()  # one array in a file, channels last


def read_image(path: Path, key: str | None = None, channels_first: bool = False) -> Array:
    """Read an image.

    Args:
        path: Any format of `READERS`.
        key: Which variable of an .npz, .mat or HDF5 file; not needed if there is only one.
        channels_first: Whether arrays hold `(C, H, W)`; pictures and files of instruments declare their axes.

    Returns:
        `(H, W, C)`, with the numbers of the file.

    Raises:
        CompsegError: The file cannot be read or holds no image.
    """
    return _as_image(path, _read(path, key).coloured, channels_first)


@dataclass(frozen=True)
class ImageFile:
    """What a file of an image holds.

    Attributes:
        image: `(H, W, C)`, with the numbers of the file; a `np.memmap` or `OnDisk` reads them when they are needed.
        channels: As the file describes them; else a count, and the colours of a photograph.
        thumbnail: `(h, w, 3)` uint8, the instrument's picture of the place; None where there is none.
        unmeasured: Pixels that hold no number in any channel, as where a map was stopped; they are set to 0.
    """

    image: Array
    channels: Channels
    thumbnail: NDArray[np.uint8] | None = None
    unmeasured: int = 0


def read_file(path: Path, how: InputSpec = PLAIN, unit: str = "", mapped: bool = False) -> ImageFile:
    """Read an image with what its file says of its channels.

    Args:
        path: Any format of `READERS`.
        how: Its variables, `image` and perhaps `axis`, and whether channels come first.
        unit: Of the axis, where the file says none.
        mapped: Whether pixels may stay on disk, as those of .npy, ENVI, Agilent mosaics, OME-Zarr and large TIFF can.

    Raises:
        CompsegError: The file cannot be read or holds no image.
    """
    reader = (lambda path, _: map_npy(path)) if mapped and path.suffix.lower() == ".npy" else None
    pixels = _read(path, how.keys.get("image"), reader, mapped)
    image, unmeasured = _measured(_as_image(path, pixels.coloured, how.channels_first), pixels)
    channels = _channels_of(path, image.shape[2], pixels, how, unit)
    if channels.count != image.shape[2]:
        raise CompsegError(
            f"{path}: an axis of {channels.count} values for {image.shape[2]} channels {image.shape}; "
            "set source.channels_first=true if the channels come first"
        )
    return ImageFile(image, channels, pixels.thumbnail, unmeasured)


def _measured(image: Array, pixels: Pixels) -> tuple[Array, int]:
    """An image whose pixels without any number are 0, and how many those are."""
    # Of instruments alone: in files of one's own, NaN may be a mistake.
    if pixels.channels is None or isinstance(image, np.memmap | OnDisk) or image.dtype.kind != "f":
        return image, 0
    empty = np.asarray(np.isnan(image).all(axis=2))
    return (np.where(empty[..., None], image.dtype.type(0), image) if empty.any() else image), int(empty.sum())


def _channels_of(path: Path, count: int, pixels: Pixels, how: InputSpec, unit: str) -> Channels:
    if (name := how.keys.get("axis")) is not None:
        values = _read(path, name).values.ravel()
        return spectral(f"{path}: {name}", [float(value) for value in values], unit)
    if (found := pixels.channels) is not None:
        return found if found.unit or not found.spectral else replace(found, unit=unit)
    # Channels of a photograph are known; three channels of an .npy may be anything.
    photograph = path.suffix.lower() in PICTURES
    return Channels(count, names={1: ("grey",), 3: ("red", "green", "blue")}.get(count, ()) if photograph else ())


def companions(path: Path) -> list[Path]:
    """The files that belong to an image beside the one that is named: an ENVI image's numbers, an Agilent's tiles."""
    if path.suffix.lower() not in (".hdr", *INSTRUMENTS):
        return []
    begins = tuple(f"{path.stem.casefold()}{end}" for end in "._")
    return sorted(file for file in path.parent.iterdir() if file.name.casefold().startswith(begins) and file != path)


def reader_of(path: Path) -> Reader | None:
    """What reads a path, by its suffix; Bruker numbers the files of its OPUS."""
    suffix = path.suffix.lower()
    return READERS.get(suffix) or (read_instrument if re.fullmatch(r"\.\d{1,4}", suffix) else None)


def _as_image(path: Path, array: Array, channels_first: bool) -> Array:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise CompsegError(f"{path}: expected (H, W) or (H, W, C), found {array.shape}; save one image in each file")
    if array.ndim == 2:
        return array[..., None]
    return np.moveaxis(array, 0, -1) if channels_first and path.suffix.lower() in ARRAYS else array


def read_labels(path: Path, key: str | None = None) -> Labels:
    """Read a mask as the values that it holds, `(H, W)`; see `masks.labels_of`."""
    return labels_of(path, _read(path, key))


def read_mask(path: Path, key: str | None = None, inside: Collection[int] | None = None) -> Mask:
    """Read a mask.

    Args:
        path: Any format of `read_image` that keeps values exactly, so no JPEG.
        key: Which variable of an .npz or .mat.
        inside: As for `masks.mask_of`.

    Returns:
        `(H, W)` bool; see `masks.mask_of` for what is inside.

    Raises:
        CompsegError: The file cannot be read or holds no mask.
    """
    return mask_of(path, read_labels(path, key), inside)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture for people, `(h, w, 3)` uint8, in grey or colour; more than 8 bits are scaled to their largest."""
    image = read_image(path)
    if image.shape[2] not in (1, 3):
        raise CompsegError(f"{path}: {image.shape[2]} channels; a picture for people has 1 (grey) or 3 (colour)")
    if image.dtype != np.uint8:
        known = np.nan_to_num(np.maximum(image, 0).astype(np.float64), posinf=0)
        image = (known * (255 / (known.max() or 1))).round().astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3)).copy()


def _read(path: Path, key: str | None, reader: Reader | None = None, mapped: bool = False) -> Pixels:
    reader = reader or reader_of(path)
    if reader is None:
        raise CompsegError(f"{path}: no reader for '{path.suffix}'; expected one of {', '.join(READERS)}")
    try:
        found = reader(path, key)
    except CompsegError:
        raise
    except MemoryError as error:
        raise CompsegError(f"{path}: not enough memory to read it; cut it, or use a machine with more") from error
    except Exception as error:  # damaged files make the libraries raise exceptions of any kind
        if is_refusal(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise CompsegError(f"{path}: cannot be read as {path.suffix} ({why}); save the file again") from error
    pixels = found if isinstance(found, Pixels) else Pixels(found)
    values: Any = pixels.values
    kind = values.dtype
    if isinstance(values, OnDisk) and (not mapped or kind.kind == "b"):
        pixels = replace(pixels, values=np.asarray(values))
    if kind.kind not in "buif":
        raise CompsegError(f"{path}: expected real numbers, found {kind}; save plain numbers")
    return replace(pixels, values=pixels.values.astype(np.uint8)) if kind.kind == "b" else pixels


JPEG = (".jpg", ".jpeg")
HDF5 = (".h5", ".hdf5", ".nxs")
ARRAYS = (".npy", ".npz", ".mat", *HDF5)
PICTURES = (".png", *JPEG, ".bmp")
TIFF = (".tif", ".tiff")
Reader = Callable[[Path, str | None], Pixels | Array]
READERS: dict[str, Reader] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    **dict.fromkeys(PICTURES, read_pillow),
    **dict.fromkeys(TIFF, read_tiff),
    **dict.fromkeys((".hdr", *NUMBERS), read_envi),
    **dict.fromkeys(HDF5, read_hdf5),
    ".ptir": read_ptir,
    ".zarr": read_ome_zarr,
    **dict.fromkeys(INSTRUMENTS, read_instrument),
}
