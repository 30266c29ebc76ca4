"""Tiles of large images, each read with a margin wide enough that its map is that of the whole image.

Needs torch and numpy alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from compseg.models.geometry import radius, stride
from compseg.samples import Window

UNKNOWN_RADIUS, UNKNOWN_STRIDE = 64, 32  # of other libraries' networks: a guess, with five halvings like ResNet's
LARGEST_SIDE = 2**20
BLOCK = 64  # pixels on each side of what a cohort decodes at once
# Without batch norm, whose statistics are constants once it is trained.
AVERAGING = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@dataclass(frozen=True)
class Tile:
    """A piece of an image.

    Attributes:
        core: Rows and columns of the map that the tile gives; the cores of all tiles partition the image.
        seen: Rows and columns of the image that they are computed from.
    """

    core: Window
    seen: Window

    @property
    def inner(self) -> Window:
        """The core in coordinates of what is seen."""
        rows, columns = (slice(c.start - s.start, c.stop - s.start) for c, s in zip(self.core, self.seen, strict=True))
        return rows, columns


@runtime_checkable
class MapsWindows(Protocol):
    """A network that can compute the map of a part of an image for less work than that of all of it."""

    def forward_window(self, x: Tensor, core: Window) -> Tensor:
        """The logits `(B, M, h, w)` of a part of the image `(B, C, H, W)`, equal to those of the whole image there."""


@dataclass(frozen=True)
class ReceptiveField:
    """What a network sees of an image.

    Attributes:
        radius: Pixels from a pixel of the map to the furthest pixel of the image that it may depend on.
        stride: A tile that begins at a multiple of it is pooled as within the whole image.
        problem: Why tiles differ from the whole image nevertheless; empty where they do not.
    """

    radius: int
    stride: int
    problem: str = ""


def receptive_field_of(model: nn.Module) -> ReceptiveField:
    """The receptive field of a network: exact where it states its `layers`, else a guess."""
    layers: Sequence[str] | None = getattr(model, "layers", None)
    averaging = next((type(part).__name__ for part in model.modules() if isinstance(part, AVERAGING)), None)
    problem = f"its {averaging} averages over the whole image (model.norm=batch, pixel or none does not)"
    if layers is None:
        unknown = f"{type(model).__name__} does not say how far it sees; overlap={UNKNOWN_RADIUS} is a guess"
        return ReceptiveField(UNKNOWN_RADIUS, UNKNOWN_STRIDE, problem if averaging else unknown)
    return ReceptiveField(radius(layers), stride(layers), problem if averaging else "")


def cut(shape: tuple[int, int], side: int, overlap: int, stride: int) -> list[Tile]:
    """Tiles of an image.

    Args:
        shape: `(H, W)` of the image.
        side: Largest side in pixels of what a tile sees; an image that is no larger is one tile. It is raised where
            less than one `stride` would remain for the core.
        overlap: Smallest margin around a core.
        stride: Tiles begin at multiples of it.

    Returns:
        Tiles row by row.
    """
    rows, columns = (list(_cut_axis(size, side, overlap, stride)) for size in shape)
    return [Tile((r_core, c_core), (r_seen, c_seen)) for r_core, r_seen in rows for c_core, c_seen in columns]


def cut_blocks(shape: tuple[int, int], side: int, margin: int) -> list[Tile]:
    """Tiles of an image that are whole blocks of a cohort, about `side` pixels large, each seen with a margin."""

    def seen(core: slice, size: int) -> slice:
        return slice(max(0, core.start - margin), min(size, core.stop + margin))

    tiles = cut(shape, max(BLOCK, side), 0, BLOCK)
    return [replace(tile, seen=(seen(tile.core[0], shape[0]), seen(tile.core[1], shape[1]))) for tile in tiles]


def _cut_axis(size: int, side: int, overlap: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Core and seen range of each tile along one axis."""
    # Small images whole: margins would only repeat work.
    if size <= side:
        yield slice(0, size), slice(0, size)
        return
    # Whole strides, so that a tile's first pixel is on the pooling grid.
    margin = math.ceil(overlap / stride) * stride
    largest = max(stride, (side - 2 * margin) // stride * stride)
    # As few cores as the side allows, of about equal size: a sliver at the end would cost a whole margin.
    step = math.ceil(size / math.ceil(size / largest) / stride) * stride
    for start in range(0, size, step):
        stop = min(start + step, size)
        yield slice(start, stop), slice(max(0, start - margin), min(stop + margin, size))


def largest_side(model: nn.Module, channels: int, itemsize: int, memory: float, margin: int = 0) -> int:
    """Side in pixels of the largest square tile that can be mapped within `memory` bytes.

    A pixel costs the raw values of the next tile, which is read meanwhile; the network's input in float32; and then
    either the raw values that this input is made of, or what a U-Net holds at its finest level. On the way down these
    are the results of two convolutions and what lies between them; on the way up the skip, and within the core seven
    times as much (the upsampled features, their concatenation with the skip, the results of convolutions).

    Args:
        model: The network.
        channels: Of the image.
        itemsize: Bytes of a raw value.
        memory: Bytes.
        margin: Pixels around the core, for a network that computes the map of the core alone; else 0.
    """
    # The first convolution has the width of the finest level, which takes most of the memory.
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    width = first.out_channels if first else channels

    def needed(side: int) -> int:
        seen, core = side**2, max(0, side - 2 * margin) ** 2
        finest = 4 * width * max(3 * seen, seen + 7 * core)
        return channels * (itemsize + 4) * seen + max(channels * itemsize * seen, finest)

    # Memory only grows with the side, so bisection needs no inverse of `needed`.
    return max(1, bisect_right(range(LARGEST_SIDE), memory, key=needed) - 1)
