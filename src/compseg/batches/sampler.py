"""Batches in which both classes stand, on every rank, without a sample twice in an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from compseg.errors import CompsegError


class BalancedBatches(Sampler[list[int]]):
    """Class-balanced batches, shuffled anew each epoch from `(seed, epoch)` alone.

    Comparative learning needs healthy and disease samples in each step. A step of `batch_size` samples on each of
    `world` ranks takes half of its samples from each class (an odd size takes the extra one from the classes in turn).
    Every rank computes the same shuffle and takes its own slice, so nothing has to be communicated. An epoch ends when
    the smaller class is used up: the larger class shows other samples each epoch. With an even batch size this is the
    paired form I+ / I- of the paper.

    Args:
        labels: 0 or 1 for each sample of the split.
        batch_size: Samples a step on one rank, at least 2.
        seed: Of the shuffles.
        rank: This process.
        world: Number of processes.

    Raises:
        CompsegError: If a class is too small to fill one step.
    """

    def __init__(self, labels: Sequence[int], batch_size: int, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        if batch_size < 2:
            raise CompsegError(f"data.batch_size={batch_size}: a batch needs a sample of each class; give at least 2")
        by_class = [np.flatnonzero(np.asarray(labels) == label) for label in (0, 1)]
        self.by_class, self.batch_size, self.seed, self.rank, self.world = by_class, batch_size, seed, rank, world
        self.epoch = self.first = 0
        if not len(self):
            raise CompsegError(
                f"training split: {len(by_class[0])} healthy and {len(by_class[1])} disease samples cannot fill "
                f"one balanced step of {batch_size} on {world} device(s); "
                "lower data.batch_size or add samples of the smaller class"
            )

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.go_on(epoch, 0)

    def go_on(self, epoch: int, step: int) -> None:
        """Leave out the first steps of an epoch, which an earlier run has taken.

        Args:
            epoch: The next one.
            step: The one that it begins with; the length stays that of a whole epoch.
        """
        self.epoch, self.first = epoch, step

    def __len__(self) -> int:
        # Two consecutive batches of any size take batch_size of each class; a last single batch needs the larger half
        # of each.
        smaller = min(len(indices) for indices in self.by_class)
        pairs, rest = divmod(smaller, self.batch_size * self.world)
        return 2 * pairs + int(rest >= self._largest_share() * self.world)

    def __iter__(self) -> Iterator[list[int]]:
        shuffled = self._shuffled()
        taken = [0, 0]
        for step in range(len(self)):
            batch: list[int] = []
            for label in (0, 1):
                share = self._share(label, step)
                start = taken[label] + self.rank * share
                batch += shuffled[label][start : start + share].tolist()
                taken[label] += share * self.world
            if step >= self.first:
                yield batch

    def _largest_share(self) -> int:
        return (self.batch_size + 1) // 2

    def _share(self, label: int, step: int) -> int:
        return (self.batch_size + (label + step) % 2) // 2

    def _shuffled(self) -> list[NDArray[np.intp]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        return [generator.permutation(indices) for indices in self.by_class]
