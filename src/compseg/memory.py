"""Host memory: how much is free, a buffer that is used again, and what the C library does with freed memory.

Fresh memory costs a page fault every 4 kB, and more where the system is short of large pages: often more time than the
work that is then done in it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from compseg.errors import CompsegError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed() -> None:
    """Make this process keep the memory that it frees, for its next requests; with glibc alone.

    By default glibc returns pieces of more than 32 MB, and more than 64 MB at the end of the heap, to the system: that
    is what a network holds of large images, in every layer of every step.
    """
    if (library := _glibc()) is not None:
        # Of 470,000 page faults in a step of 7 x 512 x 512 the first setting leaves 200,000, both leave none: 1.45 s,
        # not 2.25 (docs/research/lab-log.md). A higher threshold alone hardly helps.
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def give_back_freed() -> None:
    """Return free memory to the system; with glibc alone, each of whose threads keeps some of it."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None  # musl has neither


class ReusableBuffer:
    """Memory for one array at a time, filled again once nobody holds the array before.

    Args:
        dtype: Of the arrays.
    """

    def __init__(self, dtype: DTypeLike = np.float32) -> None:
        self._array: NDArray[Any] = np.empty(1, dtype)
        self._lent: weakref.ref[NDArray[Any]] | None = None

    def __reduce__(self) -> tuple[type[ReusableBuffer], tuple[DTypeLike]]:
        # Memory is of one process: a copy elsewhere begins empty.
        return ReusableBuffer, (self._array.dtype,)

    @property
    def in_use(self) -> bool:
        """Whether somebody holds the last array, or a part of it."""
        return self._lent is not None and self._lent() is not None

    def lend(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array in the memory of the one before, or in new memory while that one, or a part of it, is in use."""
        size = prod(shape)
        if self._array.size < size or self.in_use:
            self._array = np.empty(size, self._array.dtype)
        # Views of an array made from a buffer keep that array alive, so the weak reference tells when the last is gone.
        lent = np.frombuffer(self._array.data, self._array.dtype)
        self._lent = weakref.ref(lent)
        return lent[:size].reshape(shape)

    def content(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """The memory as an array that does not count as in use."""
        return self._array[: prod(shape)].reshape(shape)


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still use.

    The lesser of what the system has and what a container or a cluster's job still grants.

    Args:
        root: Of the file system that says so.
    """
    return min([_available(root), *_granted(root)])


def _available(root: Path) -> int:
    if (meminfo := root / "proc/meminfo").is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    # macOS has no such file and does not count what is free: take half of all memory.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _granted(root: Path) -> Iterator[int]:
    """What each control group (version 2) around this process has left; its cache of files can be reclaimed."""
    groups, top = root / "proc/self/cgroup", root / "sys/fs/cgroup"
    lines = groups.read_text().splitlines() if groups.is_file() else []
    own = [line.split("::/", 1)[1] for line in lines if "::/" in line]
    # With all groups above, because each of their limits binds this process too.
    for folder in {group for path in own for group in (top / path, *(top / path).parents) if group.is_relative_to(top)}:
        limit = folder / "memory.max"
        if limit.is_file() and (words := limit.read_text().strip()) != "max":
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / "memory.current").read_text()) - int(counts.get("inactive_file", 0))
            yield max(0, int(words) - used)


def require_memory(owner: object, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Refuse an array that does not fit into the memory that is free, before it is allocated.

    Args:
        owner: The file that says how large the array is; named in the error.
        shape: Of the array.
        dtype: Of the array.

    Raises:
        CompsegError: It does not fit.
    """
    need, free = prod(shape) * np.dtype(dtype).itemsize, free_host_memory()
    if need > free:
        raise CompsegError(
            f"{owner}: {tuple(shape)} {np.dtype(dtype)} takes {need / 2**30:.3g} GiB of memory, {free / 2**30:.3g} GiB "
            "are free; cut it into smaller images, or use a machine with more memory"
        )
