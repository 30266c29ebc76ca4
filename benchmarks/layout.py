"""The store: how pixels are best laid on disk, for whole samples, crops and single bands, of spots and of one mosaic.

`python benchmarks/layout.py` writes the table of layouts to docs/research/performance.md. What `compseg.prepare`
writes is measured through its own code, and each other row changes one thing of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from hydra.utils import instantiate
from zarr.codecs import BloscCodec, Crc32cCodec

from compseg.cohort.layout import CODEC, block_edge
from compseg.config import compose
from compseg.run_folder import environment

SPOTS, SPOT, MOSAIC = 6, (100, 100, 450), (1024, 1024, 128)  # spots seldom measure a whole number of blocks
CROP, WINDOW, BAND = 48, 256, 100  # edges of what is cut from a spot and from the mosaic; the band that is read alone
ROUNDS = 3
PAGE = Path(__file__).parents[1] / "docs" / "research" / "performance.md"
BEGIN, END = "<!-- layouts: made by benchmarks/layout.py -->", "<!-- end of layouts -->"


@dataclass(frozen=True)
class Layout:
    """One way to store an image `(H, W, C)`; the defaults are those of `compseg.prepare`."""

    name: str
    dtype: str = "float16"
    first: bool = False  # channels first, on disk and in what is read
    edge: int = 64  # of a block, pixels; 0: one block
    even: bool = True  # blocks of equal size, near that edge, in place of a remainder
    bands: int = 0  # of a block; 0: all
    shard: bool = True  # all blocks in one file
    codec: Any = CODEC
    pipeline: str = "zarr.core.codec_pipeline.BatchedCodecPipeline"

    def write(self, path: Path, image: np.ndarray) -> None:
        """Store an image."""
        stored = narrowed(image, self.dtype)
        height, width, channels = image.shape
        block = (*(self.block(size) for size in (height, width)), self.bands or channels)
        shard = tuple(-(-size // edge) * edge for size, edge in zip(image.shape, block, strict=True))
        if self.first:
            stored, block, shard = np.moveaxis(stored, 2, 0), (block[2], *block[:2]), (shard[2], *shard[:2])
        array = zarr.create_array(
            path,
            shape=stored.shape,
            dtype=stored.dtype,
            chunks=block,
            shards=shard if self.shard and shard != block else None,
            compressors=[*([self.codec] if self.codec else []), Crc32cCodec()],
        )
        array[...] = stored

    def block(self, size: int) -> int:
        """Edge of a block that covers an axis of `size` pixels."""
        if not self.edge:
            return size
        return block_edge(size, self.edge) if self.even else min(self.edge, size)

    def window(self, rows: slice, columns: slice, bands: slice | int = slice(None)) -> tuple[Any, ...]:
        """What to ask the array for."""
        return (bands, rows, columns) if self.first else (rows, columns, bands)


def narrowed(image: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # Zarr has no such type: the bits are kept as whole numbers
        return torch.from_numpy(image).bfloat16().view(torch.uint16).numpy()
    return image.astype(dtype)


ZARRS = "zarrs.ZarrsCodecPipeline"
PREPARED = Layout("**as prepared**")
LAYOUTS = (
    PREPARED,
    Layout("blocks with a remainder", even=False),
    Layout("float32", dtype="float32"),
    Layout("bfloat16", dtype="bfloat16"),
    Layout("channels first", first=True),
    Layout("blocks of 32", edge=32),
    Layout("blocks of 128", edge=128),
    Layout("one block", edge=0),
    Layout("blocks of 64, 32 bands", bands=32),
    Layout("channels first, blocks of one band", first=True, edge=0, bands=1),
    Layout("a file a block", shard=False),
    Layout("not compressed", codec=None),
    Layout("LZ4HC 5, bits shuffled", codec=BloscCodec(cname="lz4hc", clevel=5, shuffle="bitshuffle")),
    Layout("Zstandard 1, bits shuffled", codec=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")),
    Layout("Zstandard 3, bits shuffled", codec=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")),
    Layout("Zstandard 3, bytes shuffled", codec=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")),
)


def images() -> tuple[list[np.ndarray], np.ndarray]:
    """Spots of the phantom, and a mosaic of them."""
    spots = list(phantom(SPOT[0], SPOT[2], SPOTS))
    edge = MOSAIC[0] // 4
    tiles = list(phantom(edge, MOSAIC[2], 16))
    return spots, np.concatenate([np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, 16, 4)])


def phantom(size: int, channels: int, count: int) -> Iterator[np.ndarray]:
    source = instantiate(compose("train").data.source, size=size, channels=channels)
    for info in source.infos()[:count]:
        yield source.read(info).image


def milliseconds(call: Callable[[], object]) -> float:
    """Least time of the processor, all threads together: it hardly depends on what else the machine does."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return 1000 * min(taken)


def measured(layout: Layout, folder: Path, spots: list[np.ndarray], mosaic: np.ndarray) -> list[float]:
    """Bytes a value; seconds to write all; milliseconds for a whole spot, its crop and band, and so of the mosaic."""
    start = time.process_time()
    for number, image in enumerate([*spots, mosaic]):
        layout.write(folder / str(number), image)
    writing = time.process_time() - start
    values = sum(image.size for image in spots) + mosaic.size
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    with zarr.config.set({"codec_pipeline.path": layout.pipeline}):
        *small, large = (zarr.open_array(folder / str(number), mode="r") for number in range(len(spots) + 1))
        return [
            stored / values,
            writing,
            *(time / len(small) for time in reading(layout, small, SPOT[0], CROP)),
            *reading(layout, [large], MOSAIC[0], WINDOW),
        ]


def reading(layout: Layout, arrays: list[zarr.Array], size: int, edge: int) -> list[float]:
    """Milliseconds for all of each array, a square out of each, and one band of each."""
    draw = np.random.default_rng(0)
    corners = [draw.integers(size - edge, size=2) for _ in arrays]
    squares = [layout.window(slice(top, top + edge), slice(left, left + edge)) for top, left in corners]
    band = layout.window(slice(None), slice(None), BAND)
    return [
        milliseconds(lambda: [array[...] for array in arrays]),
        milliseconds(lambda: [array[square] for array, square in zip(arrays, squares, strict=True)]),
        milliseconds(lambda: [array[band] for array in arrays]),
    ]


def with_zarrs() -> list[Layout]:
    """The same through the zarrs pipeline, where that is installed."""
    if importlib.util.find_spec("zarrs") is None:
        return []
    chosen = [layout for layout in LAYOUTS if layout.name in (PREPARED.name, "float32", "one block", "not compressed")]
    return [replace(layout, name=f"{layout.name}, zarrs", pipeline=ZARRS) for layout in chosen]


TEXT = """{begin}

## Layout of the store

Made by `python benchmarks/layout.py`: {spots} spots of the phantom, {spot}, and a mosaic of such spots, {mosaic}.
Reading takes milliseconds of one processor (all threads added up, least of {rounds}, files in the page cache) for one
spot, a square of {crop} x {crop} pixels with all its bands, and one band; then the same of the mosaic, the square being
{window} x {window}. Writing takes seconds of one processor for everything. The first row is what `compseg.prepare`
writes; each other row changes one thing of it.

| layout | bytes a value | writing, s | spot | square | band | mosaic | square | band |
|---|---|---|---|---|---|---|---|---|
{rows}

Machine: `{machine}`.
{end}
"""


def kept(page: str) -> str:
    """The section of a page that holds this table; empty if there is none."""
    return BEGIN + page.split(BEGIN)[1].split(END)[0] + END + "\n" if BEGIN in page else ""


def main() -> None:
    spots, mosaic = images()
    rows = []
    for layout in (*LAYOUTS, *with_zarrs()):
        with tempfile.TemporaryDirectory() as folder:
            size, *times = measured(layout, Path(folder), spots, mosaic)
        rows.append(
            f"| {layout.name} | {size:.2f} | {times[0]:.1f} | {' | '.join(f'{time:.1f}' for time in times[1:])} |"
        )
        print(rows[-1], flush=True)
    text = TEXT.format(
        begin=BEGIN,
        end=END,
        spots=SPOTS,
        spot=" x ".join(map(str, SPOT)),
        mosaic=" x ".join(map(str, MOSAIC)),
        crop=CROP,
        window=WINDOW,
        rounds=ROUNDS,
        rows="\n".join(rows),
        machine=json.dumps({**environment(), "processors": os.cpu_count()}),
    )
    page = PAGE.read_text(encoding="utf-8")
    old = kept(page)
    PAGE.write_text(page.replace(old, text) if old else f"{page.rstrip()}\n\n{text}", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
