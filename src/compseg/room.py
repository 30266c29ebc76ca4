"""Memory that is filled anew once nobody holds what lay in it."""

from __future__ import annotations

import weakref
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Room:
    """Memory for one array at a time.

    To be given fresh memory takes longer than to fill it, and much longer where the system is short of large pages.

    Args:
        dtype: Of the arrays.
    """

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        self._array: NDArray[Any] = np.empty(1, dtype)
        self._lent: weakref.ref[NDArray[Any]] | None = None

    def __reduce__(self) -> tuple[type[Room], tuple[DTypeLike]]:
        return Room, (self._array.dtype,)

    def lend(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array in the memory of the one before, or in other memory while that one, or a part of it, is in use."""
        size = prod(shape)
        if self._array.size < size or (self._lent is not None and self._lent() is not None):
            self._array = np.empty(size, self._array.dtype)
        # Of what is made of an array that lies in a buffer all holds that array, and not only the buffer.
        lent = np.frombuffer(self._array.data, self._array.dtype)
        self._lent = weakref.ref(lent)
        return lent[:size].reshape(shape)

    def content(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """What lies there, as an array that does not count as in use."""
        return self._array[: prod(shape)].reshape(shape)
