"""What memory is free, and memory for batches where whoever needs them next can take them from."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

KEPT = 6  # arrays of batches that are kept to be filled again: image, tissue and truth of two
NUMPY: dict[torch.dtype, type[np.generic]] = {
    torch.float16: np.float16,
    torch.float32: np.float32,
    torch.bool: np.bool_,
}


class BatchMemory:
    """Memory for batches, where whoever needs them next can take them from.

    In a worker of a loader that is shared memory, on the way to a CUDA device pinned memory: neither needs a further
    copy on the host. Elsewhere batches take the memory of earlier ones, once nobody holds these any more: fresh memory
    costs about as much to be filled for the first time as the copying into it.

    Args:
        pinned: Whether a CUDA device will fetch what is filled on the host.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._kept: deque[tuple[NDArray[Any], weakref.ref[Any]]] = deque(maxlen=KEPT)

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchMemory, (self.pinned,)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor to be filled."""
        shape = tuple(shape)
        if get_worker_info() is not None:
            size = prod(shape) * dtype.itemsize
            storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
            return torch.empty(0, dtype=dtype).set_(storage).view(shape)
        if self.pinned or device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device, pin_memory=self.pinned and device.type == "cpu")
        return torch.from_numpy(self._lent(shape, NUMPY[dtype]))

    def _lent(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """A view, which is gone when the last tensor that was made of it is."""
        free = (place for place, (array, lent) in enumerate(self._kept) if lent() is None and _is(array, shape, dtype))
        place = next(free, None)
        array = np.empty(shape, dtype) if place is None else self._kept[place][0]
        view = array.view()
        if place is None:
            self._kept.append((array, weakref.ref(view)))
        else:
            self._kept[place] = array, weakref.ref(view)
        return view


def _is(array: NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]) -> bool:
    return array.shape == shape and array.dtype == dtype


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor to be filled and kept; numpy asks the system for large pages, which are faster to fill and to gather."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), NUMPY[dtype]))
    return torch.empty(tuple(shape), dtype=dtype, device=device)


def sent(values: ArrayLike, device: torch.device) -> Tensor:
    """Few values on their way to a device; the host does not wait until it has done what it was told before."""
    here = torch.as_tensor(values)
    return (here.pin_memory() if device.type == "cuda" else here).to(device, non_blocking=True)


def free_memory(device: torch.device) -> int:
    """Bytes that may still be used on a device; on the host, those that system and job allow."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_memory()


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still use.

    That is what the system has, or what a container or a job of a cluster is still granted, whichever is less.

    Args:
        root: Of the file system that says so.
    """
    return min([_available(root), *_granted(root)])


def _available(root: Path) -> int:
    if (meminfo := root / "proc/meminfo").is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    # macOS has no such file, and does not count what is free: half of all there is.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _granted(root: Path) -> Iterator[int]:
    """What each control group (version 2) around this process has left; what its files hold can be had back."""
    groups = root / "proc/self/cgroup"
    own = (
        [line.split("::/", 1)[1] for line in groups.read_text().splitlines() if "::/" in line]
        if groups.is_file()
        else []
    )
    top = root / "sys/fs/cgroup"
    for folder in {group for path in own for group in (top / path, *(top / path).parents) if group.is_relative_to(top)}:
        limit = folder / "memory.max"
        if limit.is_file() and (words := limit.read_text().strip()) != "max":
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / "memory.current").read_text()) - int(counts.get("inactive_file", 0))
            yield max(0, int(words) - used)
