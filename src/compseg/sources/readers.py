"""One reader for each file format: from a path to an array with the numbers of the file.

To add a format, write a function `(path, key) -> Pixels or array` and name its suffixes in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError, is_refusal
from compseg.samples import Mask
from compseg.sources.arrays import map_npy, read_mat, read_npy, read_npz
from compseg.sources.masks import Labels, labels_of, mask_of
from compseg.sources.pictures import Pixels, read_pillow, read_tiff

Array = NDArray[Any]


def read_image(path: Path, key: str | None = None, channels_first: bool = False) -> Array:
    """Read an image.

    Args:
        path: .npy, .npz, .mat, PNG, JPEG, BMP or TIFF.
        key: Which variable of an .npz or .mat; not needed if there is only one.
        channels_first: Whether .npy, .npz and .mat hold `(C, H, W)`; pictures declare their axes.

    Returns:
        `(H, W, C)`, with the numbers of the file.

    Raises:
        CompsegError: The file cannot be read or holds no image.
    """
    return _as_image(path, _read(path, key).coloured, channels_first)


def open_image(path: Path, channels_first: bool = False) -> Array:
    """An image as `read_image` gives it, except that the pixels of an .npy file stay on disk until they are needed.

    Args:
        path: As for `read_image`.
        channels_first: As for `read_image`.

    Raises:
        CompsegError: As for `read_image`.
    """
    if path.suffix.lower() != ".npy":
        return read_image(path, channels_first=channels_first)
    return _as_image(path, _read(path, None, lambda path, _: map_npy(path)).values, channels_first)


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


def _read(path: Path, key: str | None, reader: Callable[[Path, str | None], Pixels | Array] | None = None) -> Pixels:
    reader = reader or READERS.get(path.suffix.lower())
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
    kind = pixels.values.dtype
    if kind.kind not in "buif":
        raise CompsegError(f"{path}: expected real numbers, found {kind}; save plain numbers")
    return Pixels(pixels.values.astype(np.uint8)) if kind.kind == "b" else pixels


JPEG = (".jpg", ".jpeg")
ARRAYS = (".npy", ".npz", ".mat")
PICTURES = (".png", *JPEG, ".bmp")
TIFF = (".tif", ".tiff")
READERS: dict[str, Callable[[Path, str | None], Pixels | Array]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    **dict.fromkeys(PICTURES, read_pillow),
    **dict.fromkeys(TIFF, read_tiff),
}
