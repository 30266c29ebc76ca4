"""Maps as PNG, .npy and ENVI, written a strip of rows at a time."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from compseg.exports.stored import CLASS, ROWS, PixelSize, StoredMap
from compseg.file_names import printable
from compseg.files import atomic_open, atomic_text
from compseg.inference.outputs import SPREAD
from compseg.plots.overlay import RGB, outline_width, translucent

ENVI = """ENVI
description = {{{name}: activation, and where it is above {threshold:.6g}}}
samples = {shape[1]}
lines = {shape[0]}
bands = {count}
header offset = 0
file type = ENVI Standard
data type = 4
interleave = bsq
byte order = 0
band names = {{{bands}}}
{pixel}"""


def write_png(item: StoredMap, stem: Path) -> list[Path]:
    """Write `NAME.png`: a layer for any picture of the sample, colour where the map is active, with an outline."""
    path = stem.with_name(f"{stem.name}.png")
    # By hand, because Pillow takes a picture as a whole.
    with atomic_open(path) as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">2I5B", item.shape[1], item.shape[0], 8, 6, 0, 0, 0))
        packer = zlib.compressobj()
        for rows in _layers(item):
            # A byte before each row names its filter: none.
            lines = np.pad(rows.reshape(len(rows), -1), ((0, 0), (1, 0)))
            _chunk(file, b"IDAT", packer.compress(lines.tobytes()))
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")
    return [path]


def _chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))


def _layers(item: StoredMap) -> Iterator[RGB]:
    width = outline_width(item.shape)
    for first in range(0, item.shape[0], ROWS):
        # With as many rows around as an outline is wide, so that strips leave no lines.
        top = max(0, first - width)
        strip = item.rows(top, first + ROWS + width)
        layer = translucent(strip.activation, strip.mask, width)
        yield layer[first - top :][: min(ROWS, item.shape[0] - first)]


def write_npy(item: StoredMap, stem: Path) -> list[Path]:
    """Write `NAME.npy` (float32), `NAME_mask.npy` (bool) and, where it is there, `NAME_spread.npy`, `(H, W)` each."""
    kinds = {".npy": np.float32, "_mask.npy": np.bool_, SPREAD: np.float32}
    paths = []
    for number, (ending, dtype) in enumerate(list(kinds.items())[: len(item.bands(""))]):
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": item.shape}
        paths.append(stem.with_name(f"{stem.name}{ending}"))
        with atomic_open(paths[-1]) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for strip in item.strips():
                file.write(strip.bands[number].astype(dtype).tobytes())
    return paths


def write_envi(item: StoredMap, stem: Path, class_name: str = CLASS) -> list[Path]:
    """Write `NAME.img`, float32 and band by band (activation, mask as 0 and 1, spread if known), and `NAME.hdr`.

    The header comes last: without it the bands are no image.
    """
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".img", ".hdr")]
    name, *bands = map(_envi_text, (item.name, *item.bands(class_name)))
    with atomic_open(paths[0]) as file:
        for number in range(len(bands)):
            for strip in item.strips():
                file.write(strip.bands[number].astype("<f4").tobytes())
    known = {"shape": item.shape, "threshold": item.threshold, "pixel": _envi_pixel(item.pixel)}
    atomic_text(paths[1], ENVI.format(name=name, bands=", ".join(bands), count=len(bands), **known))
    return paths


def _envi_text(text: str) -> str:
    # A header is read by its lines, braces and commas.
    return re.sub(r"[{},]", "_", printable(text))


def _envi_pixel(pixel: PixelSize | None) -> str:
    if pixel is None:
        return ""
    edge = pixel.edge * pixel.metres  # the unit of this field
    return f"pixel size = {{{edge:.9g}, {edge:.9g}}}\n"
