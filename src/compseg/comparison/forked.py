"""Verbs that run in processes forked from one that has imported everything, side by side."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compseg.comparison.worker import PRELOAD, run_verb
from compseg.errors import CompsegError
from compseg.sweeps.attempt import STOPPED
from compseg.sweeps.jobs import complaint_in
from compseg.sweeps.machine import Machine, Share, visible_gpus
from compseg.sweeps.side_by_side import side_by_side


@dataclass(frozen=True)
class Task:
    """A command to run.

    Attributes:
        name: What it is known by.
        verb: The verb.
        arguments: Its arguments.
        log: The file that gets what it prints.
        devices: How many devices it computes on.
    """

    name: str
    verb: str
    arguments: tuple[str, ...]
    log: Path
    devices: int = 1


class Forked:
    """A task under way.

    Args:
        task: What is done.
        share: What it has of the machine; given back when it ends.

    Attributes:
        seconds: How long it took, once it has ended.
    """

    def __init__(self, task: Task, share: Share) -> None:
        context = multiprocessing.get_context("forkserver")
        arguments = (task.verb, task.arguments, task.log, share.environment)
        self.task, self.share, self.seconds = task, share, 0.0
        self.process = context.Process(target=run_verb, args=arguments)
        self.began = time.monotonic()
        self.process.start()

    def ended(self) -> bool:
        """Whether it has come to its end."""
        if self.process.is_alive():
            return False
        self.seconds = time.monotonic() - self.began
        self.share.give_back()
        return True

    def stop(self, *, at_once: bool = False) -> None:
        """Ask it to end, or end it."""
        self.process.kill() if at_once else self.process.terminate()

    @property
    def status(self) -> str:
        """What a task that has ended is to be called: `finished`, `failed`, or `started` if it was asked to end."""
        code = self.process.exitcode
        return "finished" if code == 0 else "started" if code in STOPPED else "failed"

    @property
    def why(self) -> str:
        """Why it did not finish, in its own words; empty if it did."""
        code = self.process.exitcode or 0
        if code in STOPPED:
            return f"stopped by {STOPPED[code]}"
        if code <= 0:
            return f"ended by signal {-code}" if code else ""
        log = self.task.log
        said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        found = [words for words in map(complaint_in, said.splitlines()) if words]
        return found[-1] if found else f"exit code {code}"


class Room:
    """What this machine has room for.

    Args:
        jobs: How many tasks at once; `auto`: one a GPU, or where there is none one a core.
        accelerator: `trainer.accelerator` of the tasks; with `cpu` GPUs are left alone.

    Attributes:
        count: How many tasks run at once.

    Raises:
        CompsegError: If `jobs` is neither.
    """

    def __init__(self, jobs: int | str = "auto", accelerator: str = "auto") -> None:
        if jobs != "auto" and (not isinstance(jobs, int) or jobs < 1):
            raise CompsegError(f"jobs={jobs}: expected auto or how many at once, at least 1")
        gpus = [] if accelerator == "cpu" else visible_gpus()
        if gpus and isinstance(jobs, int):
            gpus = (gpus * jobs)[: max(jobs, len(gpus))]  # more jobs than GPUs: several share one
        self.machine = Machine(None if jobs == "auto" else int(jobs), gpus=gpus)
        self.count = min(self.machine.jobs or self.machine.units, self.machine.units)
        # Read when the process that all are forked from loads its libraries: in a share it would come too late.
        self.threads = int(os.environ.setdefault("OMP_NUM_THREADS", str(max(1, self.machine.cores // self.count))))
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)

    def warm_up(self) -> None:
        """Wait until everything is imported, so that the first tasks take no longer than the others."""
        first = multiprocessing.get_context("forkserver").Process(target=int)
        first.start()
        first.join()

    def do(self, tasks: Iterable[Task]) -> Iterator[Forked]:
        """Do tasks in their order, as many at once as there is room for; yields each when it has ended."""
        return side_by_side(tasks, self.machine.has_room, self._start)

    def _start(self, task: Task) -> Forked | None:
        share = self.machine.take(task.devices)
        return Forked(task, share) if share else None

    def __str__(self) -> str:
        gpus = len(set(self.machine.gpus))
        on = _several(self.machine.cores, "core") + (f", {_several(gpus, 'GPU')}" if gpus else "")
        return f"{self.count} at once, {_several(self.threads, 'thread')} each, on {on}"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
