"""Memory that is used again: room for one array at a time, and what the C library does with what is freed.

To be given fresh memory costs a fault every 4 kB, and longer where the system is short of large pages: more time than
most of what is then done in it.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed() -> None:
    """Have this process keep the memory that it frees, for what it asks for next; with glibc alone.

    That would else go back to the system where it is more than 32 MB in a piece, or 64 MB at the heap's end, as what a
    network holds of large images is, in every layer anew.
    """
    if (library := _glibc()) is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def give_back_freed() -> None:
    """Give the system back what is free; with glibc alone, of which each thread would else keep some."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None  # musl has neither


class ReusableBuffer:
    """Memory for one array at a time, filled anew once nobody holds what lay in it.

    Args:
        dtype: Of the arrays.
    """

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        self._array: NDArray[Any] = np.empty(1, dtype)
        self._lent: weakref.ref[NDArray[Any]] | None = None

    def __reduce__(self) -> tuple[type[ReusableBuffer], tuple[DTypeLike]]:
        return ReusableBuffer, (self._array.dtype,)

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
