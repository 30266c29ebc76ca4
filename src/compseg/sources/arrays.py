"""Arrays as numpy and MATLAB write them.

A file can neither ask for more memory than there is, nor lead to another file.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from compseg.axes import spectral
from compseg.errors import CompsegError
from compseg.memory import require_memory
from compseg.sources.hdf5 import array_of, arrays_in, opened
from compseg.sources.pictures import Pixels

Array = NDArray[Any]

# MATLAB's numeric classes, as `whosmat` and the attributes of MATLAB 7.3 call them.
NUMERIC = {
    "double": 8,
    "single": 4,
    "int64": 8,
    "uint64": 8,
    "int32": 4,
    "uint32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "logical": 1,
}


def map_npy(path: Path) -> Array:
    """An .npy file whose numbers stay on disk until they are needed."""
    # Neither pickles, which could run any code of the person who wrote the file, nor archives under this suffix.
    return open_memmap(path, mode="r")


def read_npy(path: Path, key: str | None = None) -> Array:
    """An .npy file; its header is compared with the size of the file before memory is taken."""
    del key
    mapped = map_npy(path)
    require_memory(path, mapped.shape, mapped.dtype)
    return np.array(mapped)


def read_npz(path: Path, key: str | None = None) -> Array:
    """One variable of an .npz file."""
    with np.load(path, allow_pickle=False) as archive, zipfile.ZipFile(path) as members:
        name = _variable(path, key, archive.files)
        size = next(info.file_size for info in members.infolist() if info.filename in (name, f"{name}.npy"))
        require_memory(path, (size,), np.uint8)
        return np.asarray(archive[name])


def read_mat(path: Path, key: str | None = None) -> Array | Pixels:
    """One variable of a MATLAB file; `spot.data` is a field of a structure. Spero and CytoSpec files are recognised."""
    try:
        held = scipy.io.whosmat(path)
    except NotImplementedError:  # the HDF5 of MATLAB 7.3
        return _read_mat73(path, key)
    names = {name for name, _, _ in held}
    for known, reader in ((SPERO, _spero), (CYTOSPEC, _cytospec)):
        if key is None and known <= names:
            require_memory(path, (sum(math.prod(shape) for _, shape, _ in held),), np.float64)
            return reader(path, scipy.io.loadmat(path))
    if key is not None and key not in names and "." in key:
        return _field(path, key)
    # Single numbers beside the image, such as a pixel size, must not make the user name the variable.
    shapes = {name: (*shape, NUMERIC[kind]) for name, shape, kind in held if kind in NUMERIC and max(shape) > 1}
    name = _variable(path, key, shapes)
    require_memory(path, shapes[name], np.uint8)
    return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])


def _field(path: Path, key: str) -> Array:
    """A field of a structure, `spot.data`."""
    first, *rest = key.split(".")
    node: Any = scipy.io.loadmat(path, variable_names=[first]).get(first)
    for name in rest:
        fields = getattr(getattr(node, "dtype", None), "names", None) or ()
        if name not in fields or node.size != 1:
            raise CompsegError(f"{path}: no variable {key}; {first} has {', '.join(fields) or 'no fields'}")
        node = node[name].flat[0]
    return np.asarray(node)


# What Daylight's Spero writes of a tile, and CytoSpec of a map.
SPERO, CYTOSPEC = {"r", "wn", "dX", "dY"}, {"C", "Info"}


def _spero(path: Path, held: dict[str, Any]) -> Pixels:
    """A tile of a Spero: spectra `(pixels, C)` in MATLAB's order, a column of the image after the other."""
    width, height = (int(held[name].flat[0]) for name in ("dX", "dY"))
    values = [float(value) for value in held["wn"].ravel()]
    cube = np.asarray(held["r"]).reshape(width, height, len(values)).swapaxes(0, 1)
    return Pixels(cube, channels=spectral(f"{path}: wn", values, "cm-1"))


def _cytospec(path: Path, held: dict[str, Any]) -> Pixels:
    """A CytoSpec map: `C` is `(X, Y, channels, blocks)`, whose first block holds the original spectra."""
    cube = held["C"][..., 0] if held["C"].ndim == 4 else held["C"]
    lines = [str(line).strip() for line in held["Info"][0, 0]["File"].ravel()]
    # Each value stands in the line before its name: LWN and VWN are the lowest and the highest wavenumber.
    low, high = (float(lines[lines.index(name) - 1]) for name in ("LWN", "VWN"))
    values = np.linspace(low, high, cube.shape[2])
    return Pixels(cube.swapaxes(0, 1), channels=spectral(str(path), [float(value) for value in values], "cm-1"))


def _read_mat73(path: Path, key: str | None) -> Array:
    with opened(path, "mat73") as file:
        arrays = {name: node for name, node in arrays_in(file).items() if _is_image(node)}
        top = {name: node for name, node in arrays.items() if "/" not in name}
        wanted = None if key is None else key.replace(".", "/")
        if wanted is not None and wanted not in arrays and wanted in list(file):
            raise CompsegError(f"{path}: {key} is a link to another place or file; save the array itself")
        found = arrays[_variable(path, wanted, top if wanted is None else arrays)]
        # MATLAB stores column by column, which HDF5 reads as the transpose.
        return array_of(path, found).T


def _is_image(node: Any) -> bool:
    """Whether an object of HDF5 is an array of numbers; text of MATLAB is stored as numbers as well."""
    kind = getattr(node, "attrs", {}).get("MATLAB_class", b"double")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    return getattr(node, "ndim", 0) > 1 and node.size > 1 and kind in NUMERIC


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
