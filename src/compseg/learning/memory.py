"""What memory is free, and memory for batches where whoever needs them next can take them from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

NUMPY = {torch.float16: np.float16, torch.float32: np.float32, torch.bool: np.bool_}


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device, pinned: bool = False) -> Tensor:
    """A tensor to be filled.

    In a worker of a loader it lies in shared memory, and otherwise, if so wished, in pinned memory: handing it to the
    training process, or to a device, then needs no further copy on the host.

    Args:
        shape: Of the tensor.
        dtype: Of the tensor.
        device: Where it is filled.
        pinned: Whether a CUDA device will fetch it.
    """
    if get_worker_info() is None:
        if device.type == "cpu" and not pinned:
            # numpy asks the system for large pages: filling them for the first time takes half as long.
            return torch.from_numpy(np.empty(tuple(shape), NUMPY[dtype]))
        return torch.empty(tuple(shape), dtype=dtype, device=device, pin_memory=pinned)
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage).view(tuple(shape))


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
