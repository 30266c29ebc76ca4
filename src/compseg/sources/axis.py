"""The channel axis: a file or a list says where each channel lies on the spectrum, or what it is called."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from compseg.errors import CompsegError
from compseg.samples import Channels

Axis = str | Path | Sequence[float] | Sequence[str]


def read_axis(axis: Axis, unit: str = "") -> Channels:
    """Make the channels of an axis.

    Args:
        axis: A CSV of one column, in channel order, with or without a header; a 1-D .npy; a list of numbers; or a list
            of names.
        unit: Unit of the values; empty: taken from the header, as in `wavenumber_per_cm`, `wavenumber (cm-1)` or
            `wavelength_nm`.

    Returns:
        Channels with values, or with names.

    Raises:
        CompsegError: Not numbers, not finite, or neither rising nor falling.
    """
    if isinstance(axis, str | Path):
        values, header = _from_file(Path(axis))
        return _spectral(str(axis), values, unit or _unit(header))
    if axis and all(isinstance(name, str) for name in axis):
        return Channels(len(axis), names=tuple(str(name) for name in axis))
    return _spectral("source.axis", [float(value) for value in axis], unit)


def _spectral(where: str, values: list[float], unit: str) -> Channels:
    if not values or not np.isfinite(values).all():
        raise CompsegError(
            f"{where}: expected finite numbers, one a channel, found {len(values)} with gaps; fill them in"
        )
    steps = {np.sign(after - before) for before, after in pairwise(values)}
    if not (steps <= {1.0} or steps <= {-1.0}):
        raise CompsegError(
            f"{where}: values neither rise nor fall throughout; list them in the order of the channels, each once"
        )
    return Channels(len(values), values=tuple(values), unit=unit)


def _from_file(path: Path) -> tuple[list[float], str]:
    try:
        if path.suffix.lower() == ".npy":
            return [float(value) for value in np.load(path, allow_pickle=False).ravel()], ""
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    except (OSError, ValueError, TypeError) as error:
        raise CompsegError(
            f"{path}: cannot be read as an axis ({error}); expected a CSV of one column, or .npy"
        ) from error
    header = cells.pop(0) if cells and not _number(cells[0]) else ""
    for line, cell in enumerate(cells, start=2 if header else 1):
        if not _number(cell):
            raise CompsegError(f"{path}: line {line}: '{cell}' is no number; expected one number a channel")
    return [float(cell) for cell in cells], header


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unit(header: str) -> str:
    """The unit in a column's name: in brackets, after `_per_` or after the last `_`; empty if there is none."""
    if found := re.search(r"[(\[](.+)[)\]]", header):
        return found[1].strip()
    if found := re.search(r"_per_(\w+)$", header):
        return f"{found[1]}-1"
    found = re.search(r"_(\w+)$", header)
    return found[1] if found else ""
