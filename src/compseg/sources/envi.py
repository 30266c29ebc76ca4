"""ENVI: a text header `.hdr` beside a file of plain numbers, which stay on disk until they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compseg.axes import spectral, unit_of
from compseg.errors import CompsegError
from compseg.samples import Channels
from compseg.sources.pictures import Pixels

# Codes of ENVI's header for real numbers; 6 and 9 are complex.
TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Order of the axes in the file, and how to bring them into (lines, samples, bands).
ORDERS = {"bsq": ("bls", (1, 2, 0)), "bil": ("lbs", (0, 2, 1)), "bip": ("lsb", (0, 1, 2))}
NUMBERS = (".img", ".raw", ".bsq", ".bil", ".bip")  # what a file of ENVI's numbers is called; or .dat, as Agilent's
SUFFIXES = ("", ".dat", *NUMBERS)


def read_envi(path: Path, key: str | None = None) -> Pixels:
    """An ENVI image, mapped: `(lines, samples, bands)`, the first line being the upper row.

    Args:
        path: Its header, or the file of numbers beside it.
        key: Not used.
    """
    del key
    if (found := header_of(path)) is None:
        raise CompsegError(f"{path}: no header of ENVI beside it; expected {path.stem}.hdr")
    path, header = found, _header(found)
    sizes = {axis: int(header[name]) for axis, name in (("l", "lines"), ("s", "samples"), ("b", "bands"))}
    if (interleave := header.get("interleave", "bsq").lower()) not in ORDERS:
        raise CompsegError(f"{path}: interleave {interleave}, expected {', '.join(ORDERS)}")
    if (code := int(header["data type"])) not in TYPES:
        raise CompsegError(f"{path}: data type {code} is no type of real numbers; save it as float")
    # Not every writer names order and offset, whose defaults these are.
    order = ">" if int(header.get("byte order", 0)) else "<"
    dtype, offset = np.dtype(order + TYPES[code]), int(header.get("header offset", 0))
    axes, back = ORDERS[interleave]
    shape = tuple(sizes[axis] for axis in axes)
    data, need = _data_file(path), offset + int(np.prod([int(size) for size in shape])) * dtype.itemsize
    if min(shape) < 1 or offset < 0 or data.stat().st_size < need:
        raise CompsegError(f"{data}: {data.stat().st_size} bytes, {path.name} promises {need}; copy both files again")
    mapped, channels = np.memmap(data, dtype, "r", offset, shape).transpose(back), _channels(path, header, sizes["b"])
    # Agilent's header describes the file of its own format, whose first row is the lowest.
    agilent = path.with_suffix(".bsp").is_file() or path.with_suffix(".dmt").is_file()
    return Pixels(mapped[::-1] if agilent else mapped, channels=replace(channels, unit="cm-1") if agilent else channels)


def header_of(path: Path) -> Path | None:
    """The header of an ENVI image that is named by either of its files; None where there is none."""
    if path.suffix.lower() == ".hdr":
        return path
    beside = (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr"))
    return next((header for header in beside if header.is_file()), None)


def _header(path: Path) -> dict[str, Any]:
    try:
        from spectral.io.envi import read_envi_header
    except ImportError as error:
        raise CompsegError(f"{path}: ENVI files need spectral; pip install 'compseg[instruments]'") from error
    return dict(read_envi_header(str(path)))


def _data_file(header: Path) -> Path:
    """The file of numbers beside a header: `a.hdr` belongs to `a`, `a.img`, ...; `a.img.hdr` to `a.img`."""
    stem = header.with_suffix("")
    for suffix in SUFFIXES:
        for written in (suffix, suffix.upper()):
            if (found := stem.with_name(stem.name + written)).is_file():
                return found
    raise CompsegError(f"{header}: no file of numbers beside it; expected {stem.name}, {stem.name}.img, .dat, .raw ...")


def _channels(path: Path, header: dict[str, Any], count: int) -> Channels:
    values = header.get("wavelength", [])
    if len(values) == count:
        return spectral(f"{path}: wavelength", [float(value) for value in values], _unit(header))
    names = [" ".join(str(name).split()) for name in header.get("band names", [])]
    return Channels(count, names=tuple(names) if len(names) == count else ())


def _unit(header: dict[str, Any]) -> str:
    """The unit; empty if the header does not say, or says that it is unknown."""
    written = unit_of(str(header.get("wavelength units", "")))
    return "" if written.casefold() in ("unknown", "index") else written
