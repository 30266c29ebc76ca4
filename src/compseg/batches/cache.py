"""Memory for batches, and decoded samples that are kept in memory or on the device."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import get_worker_info

from compseg.cohort.layout import Array
from compseg.memory import ReusableBuffer
from compseg.private import shared_memory

KEPT = 6  # arrays of batches that are kept to be filled again: image, tissue and truth of two batches
NUMPY: dict[torch.dtype, type[np.generic]] = {
    torch.float16: np.float16,
    torch.float32: np.float32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}

Parts = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The parts of a sample by name: dtype, and what follows `(H, W)` in the shape."""

Read = Callable[[Array, str, int], None]
"""Fills an array with one part of a sample."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor to be filled and kept; numpy asks the system for large pages, which are faster to fill and to gather."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), NUMPY[dtype]))
    return torch.empty(tuple(shape), dtype=dtype, device=device)


def sent(values: ArrayLike, device: torch.device) -> Tensor:
    """A few values on their way to a device; pinned, so that the host does not wait for the device's earlier work."""
    here = torch.as_tensor(values)
    return (here.pin_memory() if device.type == "cuda" else here).to(device, non_blocking=True)


class BatchMemory:
    """Memory for batches, in the kind of memory from which their next user can take them without a further copy.

    In a worker of a loader that is shared memory, on the way to a CUDA device pinned memory. Elsewhere a batch takes
    the memory of an earlier one that nobody holds any more: filling fresh memory for the first time costs about as much
    as copying the samples into it.

    Args:
        pinned: Whether a CUDA device will fetch what is filled on the host.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        # Of bounded length, so that shapes that do not come again do not hold memory for ever.
        self._kept: deque[tuple[tuple[int, ...], torch.dtype, ReusableBuffer]] = deque(maxlen=KEPT)

    def __reduce__(self) -> tuple[Any, ...]:
        # It is pickled to workers, which fill shared memory: what is kept here is of no use there.
        return BatchMemory, (self.pinned,)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor to be filled."""
        shape = tuple(shape)
        if get_worker_info() is not None:
            # torch would copy any other tensor into shared memory when the worker hands it over.
            return torch.empty(0, dtype=dtype).set_(shared_memory(prod(shape) * dtype.itemsize)).view(shape)
        if self.pinned or device.type != "cpu":
            # torch's allocators of pinned and of CUDA memory keep freed blocks by themselves.
            return torch.empty(shape, dtype=dtype, device=device, pin_memory=self.pinned and device.type == "cpu")
        alike = (kept for size, kind, kept in self._kept if (size, kind) == (shape, dtype) and not kept.in_use)
        if (buffer := next(alike, None)) is None:
            buffer = ReusableBuffer(NUMPY[dtype])
            self._kept.append((shape, dtype, buffer))
        return torch.from_numpy(buffer.lend(shape))


class SampleCache:
    """Samples that were read once, in one array for all samples of a shape: a batch of them is a single gather.

    A sample is read when it is first asked for; memory is taken as it fills.

    Args:
        shapes: `(H, W)` of each sample.
        parts: Of a sample.
        read: Reads a part of a sample.
        device: Where samples are kept, and gathered.
        memory: For batches.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        parts: Parts,
        read: Read,
        device: torch.device,
        memory: BatchMemory,
    ) -> None:
        self.parts, self.read, self.device, self.memory = tuple(parts), read, device, memory
        counts: Counter[tuple[int, int]] = Counter()
        self.rows: list[tuple[tuple[int, int], int]] = []
        for shape in shapes:
            self.rows.append((shape, counts[shape]))
            counts[shape] += 1
        # numpy touches no page here: memory is taken as samples are filled in, not for all of them at once.
        self.arrays = {
            (shape, part): empty((count, *shape, *rest), dtype, device)
            for shape, count in counts.items()
            for part, (dtype, rest) in parts.items()
        }
        self.filled: set[int] = set()

    def picture(self, part: str, index: int) -> Tensor:
        """One part of a sample, `(H, W, ...)`, in the cache's own memory."""
        self._read_missing([index])
        shape, row = self.rows[index]
        return self.arrays[shape, part][row]

    def gather(self, part: str, indices: Sequence[int]) -> Tensor:
        """One part of several samples of one shape, `(B, H, W, ...)`, copied once."""
        self._read_missing(indices)
        shape = self.rows[indices[0]][0]
        kept, rows = self.arrays[shape, part], [self.rows[index][1] for index in indices]
        if self.device.type != "cpu":
            # A list as index would have the host wait for the device, in every step (docs/research/lab-log.md).
            return kept.index_select(0, sent(rows, self.device))
        batch = self.memory.empty((len(rows), *kept.shape[1:]), kept.dtype, self.device)
        # numpy copies whole rows, where torch would go through them value by value; `clip` spares it a buffer.
        np.take(kept.numpy(), rows, axis=0, out=batch.numpy(), mode="clip")
        return batch

    def _read_missing(self, indices: Sequence[int]) -> None:
        for index in indices:
            if index not in self.filled:
                shape, row = self.rows[index]
                for part in self.parts:
                    self._fill(self.arrays[shape, part][row], part, index)
                # After all parts: a sample whose second part cannot be read does not count as read.
                self.filled.add(index)

    def _fill(self, slot: Tensor, part: str, index: int) -> None:
        if self.device.type == "cpu":
            self.read(slot.numpy(), part, index)
            return
        read = torch.empty(slot.shape, dtype=slot.dtype)
        self.read(read.numpy(), part, index)
        slot.copy_(read)
