"""The next batch on its way to the device while the one before it is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from compseg.batches.split import Batch


class Prefetcher:
    """A loader whose batches come one ahead, on a device.

    On CUDA they are copied on a stream of their own, from pinned memory, so that copying and computing overlap. To
    Lightning this is a loader like any other; what its trainer would move is there already.

    Args:
        loader: Batches in host memory.
        device: Where they are wanted.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device) -> None:
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
        """The batch, and what tells that it has arrived."""
        if self._stream is None:
            return move_data_to_device(batch, self.device), None
        with torch.cuda.stream(self._stream):
            return move_data_to_device(batch, self.device), self._stream.record_event()

    def _received(self, batch: Batch, arrival: torch.cuda.Event | None) -> Batch:
        if arrival is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_event(arrival)
            for value in batch.values():
                if isinstance(value, Tensor):
                    value.record_stream(here)  # its memory is not given away before the step is done with it
        return batch
