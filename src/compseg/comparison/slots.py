"""Several processes at once, as many as the machine has room for."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from compseg.comparison.worker import PRELOAD, run_verb
from compseg.errors import CompsegError


@dataclass(frozen=True)
class Task:
    """A command to run.

    Attributes:
        name: What it is known by.
        verb: The verb.
        arguments: Its arguments.
        log: The file that gets what it prints.
    """

    name: str
    verb: str
    arguments: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Ended:
    """How a task went: its exit code, negative for a signal, and the seconds it took."""

    task: Task
    code: int
    seconds: float


@dataclass(frozen=True)
class Slots:
    """Room for tasks side by side.

    Attributes:
        devices: A GPU each, as `CUDA_VISIBLE_DEVICES` has it; None: the task sees all, or works on the CPU.
        threads: Of each task.
        why: Where these numbers come from, in words.
    """

    devices: tuple[str | None, ...]
    threads: int
    why: str

    @property
    def count(self) -> int:
        """How many tasks run at once."""
        return len(self.devices)


def slots(jobs: int | str, gpus: int) -> Slots:
    """Share the machine out.

    Args:
        jobs: How many at once; `auto`: one a GPU, or where there is none one a core.
        gpus: How many there are.

    Raises:
        CompsegError: If `jobs` is neither.
    """
    if jobs != "auto" and not (isinstance(jobs, int) and jobs > 0):
        raise CompsegError(f"jobs={jobs}: expected auto or how many at once, at least 1")
    cores = len(os.sched_getaffinity(0))
    count = (gpus or cores) if jobs == "auto" else int(jobs)
    threads = max(1, cores // count)
    devices = tuple(str(i % gpus) if gpus else None for i in range(count))
    there = f"{cores} core{'s' * (cores > 1)}" + (f", {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")
    return Slots(devices, threads, f"{count} at once, {threads} thread{'s' * (threads > 1)} each, on {there}")


class Workers:
    """Starts tasks and tells of those that have ended.

    Args:
        slots: Room for them.
    """

    def __init__(self, slots: Slots) -> None:
        # Read when the server that forks the tasks loads its libraries: later it would be too late.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(slots.threads)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._free = list(slots.devices)
        self._busy: dict[int, tuple[ForkServerProcess, Task, str | None, float]] = {}

    @property
    def free(self) -> int:
        """How many tasks there is room for."""
        return len(self._free)

    @property
    def running(self) -> list[Task]:
        """What is being done."""
        return [task for _, task, _, _ in self._busy.values()]

    def start(self, task: Task) -> None:
        """Start a task; there must be room for it."""
        device = self._free.pop(0)
        process = self._context.Process(target=run_verb, args=(task.verb, task.arguments, task.log, device))
        process.start()
        self._busy[process.sentinel] = (process, task, device, time.monotonic())

    def ended(self, timeout: float) -> list[Ended]:
        """Wait until a task ends, at most for so many seconds; those that have."""
        found = []
        for sentinel in wait(list(self._busy), timeout):
            process, task, device, since = self._busy.pop(sentinel)  # type: ignore[arg-type]
            process.join()
            self._free.append(device)
            found.append(Ended(task, process.exitcode or 0, time.monotonic() - since))
        return found

    def end_all(self) -> None:
        """End what is still running."""
        for process, *_ in self._busy.values():
            process.terminate()
        for process, *_ in self._busy.values():
            process.join(10)
            process.kill()
        self._busy.clear()


@contextmanager
def workers(slots: Slots) -> Iterator[Workers]:
    """Workers whose tasks end at the latest when the block does."""
    them = Workers(slots)
    try:
        yield them
    finally:
        them.end_all()


def do_all(tasks: Sequence[Task], them: Workers) -> Iterator[Ended]:
    """Do all tasks, in order, as many at once as there is room for; yields each as it ends."""
    waiting = list(tasks)
    while waiting or them.running:
        while waiting and them.free:
            them.start(waiting.pop(0))
        yield from them.ended(timeout=1.0)
