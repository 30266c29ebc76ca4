"""One reader for each file format: from a path to an array with the numbers of the file.

To add a format, write a function `(path, key) -> array` and name its suffixes in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from compseg.errors import CompsegError
from compseg.samples import Mask

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
    return _as_image(path, _read(path, key), channels_first)


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
    try:
        # Without pickles, which could run any code of the person who wrote the file; so below.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, error) from error
    return _as_image(path, _as_numbers(path, array), channels_first)


def _as_image(path: Path, array: Array, channels_first: bool) -> Array:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise CompsegError(f"{path}: expected (H, W) or (H, W, C), found {array.shape}; save one image in each file")
    if array.ndim == 2:
        return array[..., None]
    return np.moveaxis(array, 0, -1) if channels_first and path.suffix.lower() in ARRAYS else array


def read_mask(path: Path, key: str | None = None) -> Mask:
    """Read a mask.

    Args:
        path: Any format of `read_image` that keeps values exactly, so no JPEG.
        key: Which variable of an .npz or .mat.

    Returns:
        `(H, W)` bool: True where the file is not zero (in a colour picture: not black).

    Raises:
        CompsegError: The file cannot be read or holds no mask.
    """
    if path.suffix.lower() in JPEG:
        raise CompsegError(f"{path}: JPEG blurs the edges of a mask; save it as PNG")
    array = _read(path, key)
    # Masks are often saved as pictures in shades of grey or one colour.
    if array.ndim == 3 and array.shape[2] in (1, 3):
        # The largest, not the mean of colours: what is not black counts, however dark.
        array = array.max(axis=2)
    if array.ndim != 2 or 0 in array.shape:
        raise CompsegError(f"{path}: expected a mask (H, W), found {array.shape}")
    return np.asarray(array != 0)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture for people, `(h, w, 3)` uint8, from PNG, JPEG, BMP or 8-bit TIFF."""
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception as error:
        raise _unreadable(path, error) from error


def _read(path: Path, key: str | None) -> Array:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise CompsegError(f"{path}: no reader for '{path.suffix}'; expected one of {', '.join(READERS)}")
    try:
        array = reader(path, key)
    except CompsegError:
        raise
    except Exception as error:  # damaged files make the libraries raise exceptions of any kind
        raise _unreadable(path, error) from error
    return _as_numbers(path, array)


def _as_numbers(path: Path, array: Array) -> Array:
    if array.dtype.kind not in "buif":
        raise CompsegError(f"{path}: expected real numbers, found {array.dtype}; save plain numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _unreadable(path: Path, error: Exception) -> CompsegError:
    why = " ".join(str(error).split()) or type(error).__name__
    return CompsegError(f"{path}: cannot be read as {path.suffix} ({why}); save the file again")


def _npy(path: Path, key: str | None) -> Array:
    del key
    return np.asarray(np.load(path, allow_pickle=False))


def _npz(path: Path, key: str | None) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[_variable(path, key, archive.files)])


def _mat(path: Path, key: str | None) -> Array:
    try:
        held = scipy.io.whosmat(path)
    except NotImplementedError:  # the HDF5 of MATLAB 7.3
        return _mat73(path, key)
    # Single numbers beside the image, such as a pixel size, must not make the user name the variable.
    numeric = [
        name for name, shape, kind in held if kind not in ("char", "cell", "struct", "function") and max(shape) > 1
    ]
    name = _variable(path, key, numeric)
    return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])


def _mat73(path: Path, key: str | None) -> Array:
    try:
        import h5py
    except ImportError as error:
        raise CompsegError(
            f"{path}: a MATLAB 7.3 file needs h5py; pip install 'compseg[mat73]', or save it with -v7"
        ) from error
    with h5py.File(path) as file:
        arrays = [
            name for name, node in file.items() if isinstance(node, h5py.Dataset) and node.ndim > 1 and node.size > 1
        ]
        # MATLAB stores column by column, which HDF5 reads as the transpose.
        return np.asarray(file[_variable(path, key, arrays)]).T


def _variable(path: Path, key: str | None, held: Iterable[str]) -> str:
    """The variable to read: `key`, or the only one that the file holds."""
    names = list(held)
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        problem = "which variable?" if key is None else f"no variable {key};"
        raise CompsegError(
            f"{path}: {problem} it holds {', '.join(names) or 'no array'}; set source.keys.image (tissue, truth)"
        )
    return key


def _picture(path: Path, key: str | None) -> Array:
    del key
    with Image.open(path) as picture:
        if picture.format == "PNG":
            with path.open("rb") as file:
                *_, depth, colour = file.read(26)
            if depth == 16 and colour != 0:  # Pillow would silently drop the lower eight bits
                raise CompsegError(f"{path}: PNG with 16 bits per colour is not read exactly; save it as TIFF or .npy")
        return _pixels(ImageOps.exif_transpose(picture))


def _pixels(picture: Image.Image) -> Array:
    """Grey stays grey, 16 bits stay 16 bits; palettes become colours, transparency is dropped."""
    if picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    elif picture.mode not in ("L", "RGB", "F", "I") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _tiff(path: Path, key: str | None) -> Array:
    del key
    try:
        with tifffile.TiffFile(path) as file:
            return _tiff_pixels(path, file)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        with Image.open(path) as picture:  # Pillow decodes LZW and JPEG
            pages = [_pixels(page) for page in ImageSequence.Iterator(picture)]
        return pages[0] if len(pages) == 1 else np.stack(pages, axis=-1)


def _tiff_pixels(path: Path, file: tifffile.TiffFile) -> Array:
    """The first series; its pages, planes or samples are the channels."""
    series = file.series[0]
    others = [axis for axis in series.axes if axis not in "YX"]
    if len(others) > 1 or not {"Y", "X"} <= set(series.axes):
        raise CompsegError(
            f"{path}: expected rows, columns and one channel axis, found {series.axes} {series.shape}; save (C, H, W)"
        )
    array = np.asarray(series.asarray())
    if others:
        array = np.moveaxis(array, series.axes.index(others[0]), -1)
    # The fourth sample of a colour picture is transparency; of other TIFFs it is a channel.
    coloured = file.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
    return array[..., :3] if coloured and others == ["S"] else array


JPEG = (".jpg", ".jpeg")
ARRAYS = (".npy", ".npz", ".mat")
PICTURES = (".png", *JPEG, ".bmp")
TIFF = (".tif", ".tiff")
READERS: dict[str, Callable[[Path, str | None], Array]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".mat": _mat,
    **dict.fromkeys(PICTURES, _picture),
    **dict.fromkeys(TIFF, _tiff),
}
