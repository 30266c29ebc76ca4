"""Loaders: workers that end when they are told, batches sent ahead to the device, epochs that resume in the middle."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from compseg.batches.dataset import Batch
from compseg.batches.sampler import BalancedBatches
from compseg.private import end_workers_of


class Loader(DataLoader[Batch]):
    """A loader whose workers ignore SIGTERM, with which torch and Python would end them and then wait for ever.

    torch's own, orderly way fails in the garbage collector, which may have taken the queues to the workers before. So
    the iterators are kept until `end_workers`, which also runs when Python exits. Workers of a process that is killed
    end by themselves: torch has them watch their parent, which with forkserver is not the process that reads.
    """

    reading: ClassVar[set[Any]] = set()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"worker_init_fn": end_with_reader, **options})

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if self.num_workers:
            self.reading.add(iterator)
        return iterator


def end_with_reader(_: int) -> None:
    """In a worker: end when the process that reads its batches is gone, however it ended."""

    def follow() -> None:
        if (reader := multiprocessing.parent_process()) is not None:
            reader.join()
            # `sys.exit` would end this thread alone.
            os._exit(1)

    # A daemon: a worker that is told to end must not wait for this thread, which waits for the reader.
    threading.Thread(target=follow, daemon=True).start()


@atexit.register
def end_workers() -> None:
    """End the workers of all loaders; to read again, a loader has to be made again."""
    while Loader.reading:
        end_workers_of(Loader.reading.pop())


def as_read(batch: Batch) -> Batch:
    """The `collate_fn` of a loader whose dataset has joined the samples already."""
    return batch


class Prefetcher:
    """A loader whose next batch is sent to the device while the step before it computes.

    On CUDA batches are copied on a stream of their own, from pinned memory, so that copying and computing overlap. To
    Lightning this is a loader like any other, whose batches need no move.

    Args:
        loader: Batches in host memory.
        device: Where they are needed.
    """

    def __init__(self, loader: DataLoader[Batch], device: torch.device) -> None:
        self.loader, self.device = loader, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        coming: tuple[Batch, torch.cuda.Event | None] | None = None
        for batch in self.loader:
            arrived, coming = coming, self._sent(batch)
            if arrived is not None:
                yield self._received(*arrived)
        if coming is not None:
            yield self._received(*coming)

    def _sent(self, batch: Batch) -> tuple[Batch, torch.cuda.Event | None]:
        """The batch on its way, and the event of its arrival."""
        if self._stream is None:
            return move_data_to_device(batch, self.device), None
        with torch.cuda.stream(self._stream):
            return move_data_to_device(batch, self.device), self._stream.record_event()

    def _received(self, batch: Batch, arrival: torch.cuda.Event | None) -> Batch:
        if arrival is not None:
            here = torch.cuda.current_stream(self.device)
            # The device's queue waits, the host does not.
            here.wait_event(arrival)
            for value in batch.values():
                if isinstance(value, Tensor):
                    value.record_stream(here)  # its memory is not given away before the step is done with it
        return batch


class ResumableLoader:
    """A loader that continues at the trainer's step, also in the middle of an epoch.

    It decides where to begin when the first batch is asked for: Lightning asks for the iterator, and workers for their
    first batches, before the trainer knows at which step it resumes.

    Args:
        loader: Of training batches.
        batches: The loader's own, which can skip steps.
        trainer: Whose step counts.
    """

    def __init__(self, loader: DataLoader[Batch] | Prefetcher, batches: BalancedBatches, trainer: pl.Trainer) -> None:
        self.loader, self.batches, self.trainer = loader, batches, trainer

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        step = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        # To overfit, every epoch has the batches of the first.
        overfits = bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]
        self.batches.resume_at(0 if overfits else self.trainer.current_epoch, step)
        yield from self.loader
