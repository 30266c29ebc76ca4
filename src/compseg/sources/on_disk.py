"""Images that are larger than memory and stay in their files, of which a window is read at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from compseg.errors import reading
from compseg.memory import require_memory

Array = NDArray[Any]


class OnDisk:
    """An image `(H, W, C)` of which `image[rows, columns]` reads a window, as an array in memory.

    Args:
        path: Of its file, named in errors.
        opened: Gives what is cut, a mapped file or an array of Zarr; called for each window, because pages of a mapped
            file that were read count as our memory while it stays mapped.
        order: Which axes of that are rows, columns and, if there is one, channels; of the others the first is taken.
        upwards: Whether the first of its rows is the lowest.
    """

    ndim = 3

    def __init__(self, path: Path, opened: Callable[[], Any], order: Sequence[int], upwards: bool = False) -> None:
        self._path, self._opened, self._order, self._upwards = path, opened, tuple(order), upwards
        found = opened()
        sizes = [int(found.shape[axis]) for axis in self._order]
        self.shape, self.dtype = (*sizes, 1)[:3], np.dtype(found.dtype)
        self.size = prod(self.shape)

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    def __getitem__(self, window: slice | tuple[slice, ...]) -> Array:
        """The pixels `(h, w, C)` of rows and columns; steps are above 0."""
        rows, columns = (*(window if isinstance(window, tuple) else (window,)), slice(None))[:2]
        (top, bottom, step), height = rows.indices(self.shape[0]), self.shape[0]
        if self._upwards and (count := len(range(top, bottom, step))):
            last = top + (count - 1) * step
            top, bottom = height - 1 - last, height - top
        wanted = (slice(top, bottom, step), columns)
        with reading(self._path, "copy it again"):
            found = self._opened()
            cut: list[int | slice] = [0] * len(found.shape)
            for axis, part in zip(self._order, (*wanted, slice(None)), strict=False):
                cut[axis] = part
            # What is left of the axes, in the order of the file.
            values = np.array(found[tuple(cut)]).transpose(np.argsort(np.argsort(self._order)))
        values = values if values.ndim == self.ndim else values[..., None]
        return values[::-1] if self._upwards else values

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """All of it; `(H, W)` if there is no axis of channels."""
        del copy
        require_memory(self._path, self.shape, self.dtype)
        values = self[:, :]
        return np.asarray(values if len(self._order) == self.ndim else values[..., 0], dtype)
