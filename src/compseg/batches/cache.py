"""Decoded samples, kept in memory or on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from compseg.batches.memory import BatchMemory, empty, sent
from compseg.cohort.layout import Array

Read = Callable[[Array, str, int], None]
"""Fills an array with one part of a sample."""


class SampleCache:
    """What was read once, in one array for all samples of a shape, so that a batch of them is a single gather.

    A sample is read when it is first asked for; memory is taken as it fills.

    Args:
        shapes: `(H, W)` of each sample.
        parts: For each part of a sample, its dtype and what follows `(H, W)` in its shape.
        read: Reads a part of a sample.
        device: Where samples are kept, and gathered.
        memory: For batches.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        parts: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
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
        self.arrays = {
            (shape, part): empty((count, *shape, *rest), dtype, device)
            for shape, count in counts.items()
            for part, (dtype, rest) in parts.items()
        }
        self.filled: set[int] = set()

    def picture(self, part: str, index: int) -> Tensor:
        """One part of a sample, `(H, W, ...)`, where it is kept."""
        self._have([index])
        shape, row = self.rows[index]
        return self.arrays[shape, part][row]

    def gather(self, part: str, indices: Sequence[int]) -> Tensor:
        """One part of several samples of one shape, `(B, H, W, ...)`, copied once."""
        self._have(indices)
        shape = self.rows[indices[0]][0]
        kept, rows = self.arrays[shape, part], [self.rows[index][1] for index in indices]
        if self.device.type != "cpu":
            return kept.index_select(0, sent(rows, self.device))
        batch = self.memory.empty((len(rows), *kept.shape[1:]), kept.dtype, self.device)
        # numpy copies whole rows, where torch would go through them value by value; `clip` is its way without a buffer.
        np.take(kept.numpy(), rows, axis=0, out=batch.numpy(), mode="clip")
        return batch

    def _have(self, indices: Sequence[int]) -> None:
        for index in indices:
            if index not in self.filled:
                shape, row = self.rows[index]
                for part in self.parts:
                    self._fill(self.arrays[shape, part][row], part, index)
                self.filled.add(index)

    def _fill(self, slot: Tensor, part: str, index: int) -> None:
        if self.device.type == "cpu":
            self.read(slot.numpy(), part, index)
            return
        read = torch.empty(slot.shape, dtype=slot.dtype)
        self.read(read.numpy(), part, index)
        slot.copy_(read)
