"""Arrays as numpy and MATLAB write them.

A file can neither ask for more memory than there is, nor lead to another file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.memory import require_memory

Array = NDArray[Any]

# MATLAB's numeric classes, as `whosmat` and the attributes of MATLAB 7.3 call them.
SIZES = {"double": 8, "single": 4, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2}
NUMERIC = {**SIZES, "int8": 1, "uint8": 1, "logical": 1}


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


def read_mat(path: Path, key: str | None = None) -> Array:
    """One variable of a MATLAB file."""
    try:
        held = scipy.io.whosmat(path)
    except NotImplementedError:  # the HDF5 of MATLAB 7.3
        return _read_mat73(path, key)
    # Single numbers beside the image, such as a pixel size, must not make the user name the variable.
    shapes = {name: (*shape, NUMERIC[kind]) for name, shape, kind in held if kind in NUMERIC and max(shape) > 1}
    name = _variable(path, key, shapes)
    require_memory(path, shapes[name], np.uint8)
    return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])


def _read_mat73(path: Path, key: str | None) -> Array:
    try:
        import h5py
    except ImportError as error:
        raise CompsegError(
            f"{path}: a MATLAB 7.3 file needs h5py; pip install 'compseg[mat73]', or save it with -v7"
        ) from error
    with h5py.File(path, "r") as file:
        # The kinds of links first: to ask for the object behind a link would open the file that it names.
        own = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
        if key is not None and key not in own and key in list(file):
            raise CompsegError(f"{path}: {key} is a link to another place or file; save the array itself")
        arrays = {name: node for name in own if _is_image(node := file[name])}
        dataset = arrays[_variable(path, key, arrays)]
        if dataset.external or dataset.is_virtual:
            raise CompsegError(f"{path}: {dataset.name} lies in another file; save the array itself")
        if not dataset.id.get_storage_size():
            raise CompsegError(f"{path}: {dataset.name} {dataset.shape} holds no data; save it again")
        require_memory(path, dataset.shape, dataset.dtype)
        # MATLAB stores column by column, which HDF5 reads as the transpose.
        return np.asarray(dataset[()]).T


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
