"""Squares cut from samples that are larger than what one step can take."""

from __future__ import annotations

import numpy as np

from compseg.cohort import Cohort
from compseg.cohort.layout import Array
from compseg.errors import CompsegError
from compseg.samples import Window

STREAM = 1  # so that a crop does not share its random numbers with the augmentation of its sample
STRIP = 1024  # rows of a tissue mask in memory at a time, about


class Crops:
    """Where a sample is cut: a square that holds tissue, drawn from `(seed, sample, epoch)`.

    Each tissue pixel has about the same chance to be in it. No more is kept of a sample than a coarse count of its
    tissue.

    Args:
        edge: Of the square, pixels; a sample that is smaller is taken whole.
        seed: Of the draws.

    Raises:
        CompsegError: The edge is no number of pixels.
    """

    def __init__(self, edge: int, seed: int) -> None:
        if edge < 2:
            raise CompsegError(f"data.crop={edge}: expected the edge of a square in pixels, at least 2")
        self.edge, self.cell, self.seed = edge, edge // 2, seed
        self._cells: dict[str, Array] = {}

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """`(h, w)` of what is cut from an image of `shape`."""
        return min(self.edge, shape[0]), min(self.edge, shape[1])

    def window(self, cohort: Cohort, name: str, index: int, epoch: int | None) -> Window | None:
        """Rows and columns of a sample.

        Args:
            cohort: Holds the sample.
            name: The sample.
            index: Its number in the split.
            epoch: Of training; None: the same square always.

        Returns:
            The window, or None for the whole sample.
        """
        shape = cohort.shape(name)[:2]
        size = self.size(shape)
        if size == shape:
            return None
        if name not in self._cells:
            self._cells[name] = tissue_cells(cohort, name, self.cell)
        draw = np.random.default_rng((STREAM, self.seed, index, 0 if epoch is None else epoch + 1))
        cell = self._drawn(self._cells[name], draw)
        rows, columns = (self._around(*of_axis, draw) for of_axis in zip(cell, size, shape, strict=True))
        return rows, columns

    def _drawn(self, cells: Array, draw: np.random.Generator) -> tuple[int, int]:
        weights = cells.ravel() if cells.any() else np.ones(cells.size)
        row, column = divmod(int(draw.choice(cells.size, p=weights / weights.sum())), cells.shape[1])
        return row, column

    def _around(self, cell: int, size: int, length: int, draw: np.random.Generator) -> slice:
        """`size` of `length` pixels, which hold the whole cell."""
        start, end = cell * self.cell, min((cell + 1) * self.cell, length)
        first = int(draw.integers(max(0, end - size), min(start, length - size), endpoint=True))
        return slice(first, first + size)


def tissue_cells(cohort: Cohort, name: str, cell: int) -> Array:
    """How many tissue pixels each cell of `cell` x `cell` pixels holds; reads the mask strip by strip."""
    height, width, _ = cohort.shape(name)
    strip = cell * max(1, STRIP // cell)
    counts = []
    for top in range(0, height, strip):
        mask = cohort.tissue(name, (slice(top, min(top + strip, height)), slice(0, width)))
        rows = np.add.reduceat(mask, range(0, mask.shape[0], cell), axis=0, dtype=np.int64)
        counts.append(np.add.reduceat(rows, range(0, width, cell), axis=1))
    return np.concatenate(counts)
