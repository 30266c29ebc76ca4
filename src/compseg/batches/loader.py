"""A loader whose worker processes end when they are told, whatever else happens."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from typing import Any, ClassVar

from torch.utils.data import DataLoader

from compseg.batches.split import Batch


class Loader(DataLoader[Batch]):
    """A loader whose workers do not hear SIGTERM, by which torch and Python would end them, and wait for ever.

    Left to the garbage collector, torch's own, polite way fails where it finds the queues to the workers collected
    already. So the iterators are kept until `end_workers`, which runs when Python ends too. Workers of a process that
    is killed end by themselves: torch has them watch their parent, which with forkserver is not the one that reads.
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
    """In a worker: end when the process that reads its batches is gone, however it went."""

    def follow() -> None:
        if (reader := multiprocessing.parent_process()) is not None:
            reader.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@atexit.register
def end_workers() -> None:
    """End the workers of all loaders; one that is asked for batches afterwards has to be made anew."""
    while Loader.reading:
        Loader.reading.pop()._shutdown_workers()
