"""HDF5: arrays by their path in the file, MATLAB 7.3, and photothermal .ptir.

A file leads to no other file: links, external and virtual datasets are refused before they are followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.axes import spectral
from compseg.errors import CompsegError
from compseg.memory import require_memory
from compseg.sources.pictures import Pixels

Array = NDArray[Any]
MEASUREMENT, SPECTRA = "Measurement_", "Raw_Data"  # in a .ptir file


@contextmanager
def opened(path: Path, extra: str) -> Iterator[Any]:
    """An HDF5 file, where h5py is installed; `extra` says with what it comes."""
    try:
        import h5py
    except ImportError as error:
        raise CompsegError(
            f"{path}: a {'MATLAB 7.3' if extra == 'mat73' else 'HDF5'} file needs h5py; "
            f"pip install 'compseg[{extra}]'" + (", or save it with -v7" if extra == "mat73" else "")
        ) from error
    with h5py.File(path, "r") as file:
        yield file


def arrays_in(group: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Every array of a file by its path, those behind links left out."""
    import h5py

    found: dict[str, Any] = {}
    for name in group:
        # The kinds of links first: to ask for the object behind a link would open the file that it names.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        node = group[name]
        if isinstance(node, h5py.Dataset):
            found[prefix + name] = node
        elif depth < 8 and name != "#refs#":  # hard links may form a circle
            found |= arrays_in(node, f"{prefix}{name}/", depth + 1)
    return found


def array_of(path: Path, dataset: Any) -> Array:
    """The numbers of a dataset that lies in its own file."""
    if dataset.external or dataset.is_virtual:
        raise CompsegError(f"{path}: {dataset.name} lies in another file; save the array itself")
    if not dataset.id.get_storage_size():
        raise CompsegError(f"{path}: {dataset.name} {dataset.shape} holds no data; save it again")
    require_memory(path, dataset.shape, dataset.dtype)
    return np.asarray(dataset[()])


def read_hdf5(path: Path, key: str | None = None) -> Array:
    """One array of an HDF5 file, by its path `entry/data`, or the only one of two or three axes."""
    with opened(path, "instruments") as file:
        held = arrays_in(file)
        key = None if key is None else key.strip("/")
        if key is None:
            images = {name: node for name, node in held.items() if node.ndim in (2, 3) and node.dtype.kind in "buif"}
            key = next(iter(images)) if len(images) == 1 else None
        if key not in held:
            problem = "which array?" if key is None else f"no array {key};"
            raise CompsegError(
                f"{path}: {problem} it holds {', '.join(list(held)[:12]) or 'no array'}; set source.keys.image"
            )
        return array_of(path, held[key])


def read_ptir(path: Path, key: str | None = None) -> Pixels:
    """The hyperspectral image of a photothermal .ptir file.

    The first measurement whose spectra fill a grid of positions; `key` names another, such as `Measurement_001`. Values
    are as stored, in the unit of the channel. The stage counts upwards, so the largest Y is the upper row.
    """
    with opened(path, "instruments") as file:
        held = arrays_in(file)
        grids: dict[str, tuple[Any, Array, Array]] = {}
        for name, node in held.items():
            measurement = name.partition("/")[0]
            positions = held.get(f"{measurement}/Position_Values")
            if not (name.startswith(MEASUREMENT) and name.endswith(SPECTRA)) or positions is None:
                continue
            if (places := _places(array_of(path, positions))) is not None and len(places[0]) == node.shape[0]:
                grids.setdefault(measurement, (node, *places))
        chosen = key or next(iter(grids), "")
        if chosen not in grids:
            raise CompsegError(
                f"{path}: no hyperspectral image {key or ''}; it holds {', '.join(grids) or 'single spectra'}"
            )
        node, rows, columns = grids[chosen]
        spectra, values = array_of(path, node), array_of(path, held[f"{chosen}/Spectroscopic_Values"]).ravel()
    cube = np.full((rows.max() + 1, columns.max() + 1, spectra.shape[1]), np.nan, spectra.dtype)
    cube[rows, columns] = spectra
    return Pixels(cube, channels=spectral(str(path), [float(value) for value in values], "cm-1"))


def _places(positions: Array) -> tuple[Array, Array] | None:
    """Row and column of each position `(n, 2)` of X and Y; None where they are no grid."""
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) < 4:
        return None
    # Stages repeat a position to within a thousandth of a step.
    (x, column), (y, row) = (np.unique(each.round(2), return_inverse=True) for each in positions.T)
    if min(len(x), len(y)) < 2 or len(x) * len(y) > 4 * len(positions):
        return None
    return len(y) - 1 - row, column
