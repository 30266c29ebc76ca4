"""The channel axis: from a file or a list to the position or name of each channel."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from numpy.lib.format import open_memmap

from compseg.axes import channels_of, spectral
from compseg.errors import CompsegError
from compseg.samples import Channels

Axis = str | Path | Sequence[float] | Sequence[str]
Table = list[list[str]]

# Names of columns that hold positions on a spectral axis.
_NAMED = re.compile(r"wave|raman|shift|frequen|energy|cm.?-1|cm\^|1/cm|per_cm|\bnm\b|_nm|\bum\b|µm|micron|\bev\b", re.I)


def read_axis(axis: Axis, unit: str = "") -> Channels:
    """Make the channels of an axis.

    Args:
        axis: A CSV in channel order, with or without a header, of one column or of a table in which one column is
            recognised; a 1-D .npy; a list of numbers; or a list of names, of which some may be numbers.
        unit: Unit of the values; empty: taken from the header, as in `wavenumber_per_cm`, `wavenumber (cm-1)` or
            `wavelength_nm`.

    Returns:
        Channels with values, or with names.

    Raises:
        CompsegError: Not numbers, not finite, neither rising nor falling, or a table without a recognisable column.
    """
    if isinstance(axis, str | Path):
        values, header = _from_file(Path(axis))
        return spectral(str(axis), values, unit or _unit(header))
    return channels_of(axis, unit, "source.axis")


def _from_file(path: Path) -> tuple[list[float], str]:
    try:
        if path.suffix.lower() == ".npy":
            array = open_memmap(path, mode="r")
            if array.ndim == 0 or max(array.shape) != array.size:
                raise ValueError(f"{array.shape} is a table")  # noqa: TRY301 (told below, with all that is no axis)
            return [float(value) for value in array.ravel()], ""
        # Spreadsheets put a byte order mark first, which would make a header of the first number.
        text = path.read_text(encoding="utf-8-sig")
        # Commas last: beside another delimiter they are decimal.
        table = _table(text, next((delimiter for delimiter in ";\t" if delimiter in text), ","))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise CompsegError(
            f"{path}: cannot be read as an axis ({error}); expected a CSV of one column, or .npy"
        ) from error
    return _column(path, table)


def _table(text: str, delimiter: str) -> Table:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    # Cells that are empty at the end of a line say nothing.
    stripped = ([cell.strip() for cell in row] for row in rows)
    return [row[: max(place for place, cell in enumerate(row, start=1) if cell)] for row in stripped if any(row)]


def _column(path: Path, table: Table) -> tuple[list[float], str]:
    """The values of the one column that is the axis, and its header."""
    if len(table) == 1 and len(table[0]) > 2:  # all numbers in one line
        table = [[cell] for cell in table[0]]
    headed = bool(table) and not all(_is_number(cell) for cell in table[0])
    header, rows = (table[0], table[1:]) if headed else ([], table)
    if _commas_are_decimal(header, rows):
        rows = [[",".join(row)] for row in rows]
    if len({len(row) for row in rows}) > 1:
        raise CompsegError(f"{path}: lines of {len(rows[0])} cells and of other numbers of cells; keep one column")
    columns = list(zip(*rows, strict=True))
    place = _place(path, header, columns) if len(columns) > 1 else 0
    values = list(_numbers(path, columns[place] if columns else (), 2 if headed else 1))
    return values, header[place] if place < len(header) else ""


def _commas_are_decimal(header: Sequence[str], rows: Table) -> bool:
    """Whether `1000,25` is one number: no other reading, as a table of two columns, makes sense."""
    if len(header) > 1 or not rows or max(map(len, rows)) != 2:
        return False
    if not all(re.fullmatch(r"[+-]?\d+", row[0]) and re.fullmatch(r"\d+", row[-1]) for row in rows):
        return False
    return min(map(len, rows)) == 1 or not any(_counts(column) for column in zip(*rows, strict=True))


def _place(path: Path, header: Sequence[str], columns: list[tuple[str, ...]]) -> int:
    """Which column of a table is the axis: the one that is named so, or the only one beside row numbers."""
    named = [place for place, name in enumerate(header) if _NAMED.search(name) and place < len(columns)]
    rest = [
        place
        for place, column in enumerate(columns)
        if not _counts(column) and all(_is_number(cell) for cell in column)
    ]
    for found in (named, rest):
        if len(found) == 1:
            return found[0]
    names = ", ".join(header) or "no header"
    raise CompsegError(f"{path}: {len(columns)} columns ({names}); keep the one with the position of each channel")


def _counts(column: Sequence[str]) -> bool:
    """Whether a column numbers the rows, from 0 or 1."""
    return list(column) in ([str(start + row) for row in range(len(column))] for start in (0, 1))


def _numbers(path: Path, cells: Sequence[str], first: int) -> Iterator[float]:
    for line, cell in enumerate(cells, start=first):
        if not _is_number(cell):
            raise CompsegError(f"{path}: line {line}: '{cell}' is no number; expected one number for each channel")
        yield float(_plain(cell))


def _plain(text: str) -> str:
    """A number with a decimal point, also where a comma was written."""
    return text.replace(",", ".") if re.fullmatch(r"[+-]?\d+,\d+", text) else text


def _is_number(text: str) -> bool:
    try:
        float(_plain(text))
    except ValueError:
        return False
    return True


def _unit(header: str) -> str:
    """The unit in a column's name: in brackets, after `_per_` or after the last `_`; else empty."""
    if found := re.search(r"[(\[](.+)[)\]]", header):
        return found[1].strip()
    if found := re.search(r"_per_(\w+)$", header):
        return f"{found[1]}-1"
    found = re.search(r"_(\w+)$", header)
    return found[1] if found else ""
