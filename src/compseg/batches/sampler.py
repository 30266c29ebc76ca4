"""Class-balanced batches for every rank; no sample twice per epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler, SequentialSampler

from compseg.errors import CompsegError


class BalancedBatches(Sampler[list[int]]):
    """Class-balanced batches, shuffled again in each epoch from `(seed, epoch)` alone.

    Comparative learning needs healthy and disease samples in each step. A step of `batch_size` samples on each of
    `world` ranks takes half of its samples from each class (an odd size takes the extra one from the classes in turn).
    Every rank computes the same shuffle and takes its own slice, so nothing has to be communicated. An epoch ends when
    the smaller class is used up: the larger class shows other samples each epoch. With an even batch size this is the
    paired form I+ / I- of the paper.

    Args:
        labels: 0 or 1 for each sample of the split.
        batch_size: Samples per step on one rank, at least 2.
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
        self.resume_at(epoch, 0)

    def resume_at(self, epoch: int, step: int) -> None:
        """Skip the first steps of an epoch, which an earlier run has taken.

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
        return 2 * pairs + int(rest >= (self.batch_size + 1) // 2 * self.world)

    def __iter__(self) -> Iterator[list[int]]:
        # Without the rank: all have to shuffle alike, so that no two take the same sample.
        generator = np.random.default_rng((self.seed, self.epoch))
        shuffled: list[NDArray[np.intp]] = [generator.permutation(indices) for indices in self.by_class]
        taken = [0, 0]
        for step in range(len(self)):
            batch: list[int] = []
            for label in (0, 1):
                share = (self.batch_size + (label + step) % 2) // 2
                start = taken[label] + self.rank * share
                batch += shuffled[label][start : start + share].tolist()
                taken[label] += share * self.world
            # Steps before the first have taken their samples too: the rest of the epoch is that of an unbroken one.
            if step >= self.first:
                yield batch


def batches_of_equal_shape(
    sizes: Sequence[tuple[int, int]], indices: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Batches of samples of one shape each, so that validation needs no padding and a map no neighbours.

    Args:
        sizes: `(H, W)` of each sample of the split.
        indices: The samples to take.
        batch_size: Most samples per batch.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        by_size.setdefault(sizes[index], []).append(index)
    return [same[start : start + batch_size] for same in by_size.values() for start in range(0, len(same), batch_size)]


class BatchIndex(NamedTuple):
    """The samples of a batch, and the epoch, on which their crops depend; None: the same crops each time."""

    indices: Sequence[int]
    epoch: int | None = None


class BatchIndexSampler(SequentialSampler):
    """Adds the epoch to each batch of indices, because the processes that read the batch do not know it.

    A `SequentialSampler` to Lightning, which would replace any other for `trainer.overfit_batches`.

    Args:
        batches: Those of training, which know the epoch, or a fixed list.
    """

    def __init__(self, batches: BalancedBatches | Sequence[Sequence[int]]) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; with a trainer, `ResumableLoader` does it."""
        if isinstance(self.batches, BalancedBatches):
            self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndex]:  # type: ignore[override]
        epoch = self.batches.epoch if isinstance(self.batches, BalancedBatches) else None
        return (BatchIndex(indices, epoch) for indices in self.batches)
