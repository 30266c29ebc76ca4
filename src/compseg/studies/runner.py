"""Runs jobs side by side: starts each as soon as there is a slot for it, and records how it ends.

A job is always a process of its own, with the command line that would run it alone. What it leaves behind (memory of
the GPU, seeds, loggers) cannot touch the next one, and a job that is killed takes nothing along. It is also what makes
several devices work: Lightning starts the other ranks with the command line that it finds, and that of a sweep would
start the whole sweep again on each.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from compseg.faults import is_locked
from compseg.studies.record import DONE, problem_in, read_record, write_record

if TYPE_CHECKING:
    from compseg.studies.slots import Share

LOG = logging.getLogger("compseg")
OUTPUT = "output.txt"
PATIENCE = 30.0  # seconds that a job that is told to end has for its last step and its checkpoint

# What Lightning or a queue may have left in the environment: a job would take itself for one of several ranks.
_RANKS = re.compile(
    r"LOCAL_RANK|NODE_RANK|GROUP_RANK|RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_.*|PL_GLOBAL_SEED|PL_SEED_WORKERS"
    r"|SLURM_NTASKS|SLURM_PROCID|SLURM_LOCALID"
)
# Exit codes of a process that was told to end, so that its job continues another time. Before a process has a handler
# for a signal, it ends by the signal itself.
_TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STOPPED = {code: number.name for number in _TOLD for code in (-number, 128 + number)}


@dataclass(frozen=True)
class Job:
    """A run of a study in plain values, so that it may travel to another machine."""

    folder: Path  # the run folder
    overrides: tuple[str, ...]  # what sets it apart and what all jobs share, as on the command line of `compseg.train`
    command: tuple[str, ...]  # what follows the interpreter to run it alone, `-m compseg.VERB ...`
    cwd: str = "."
    devices: int = 1
    label: str = ""  # what the log says about it when it starts; if empty, the log says nothing about it
    rank_by: str | None = None  # the metric that a search goes by; None if the run is not evaluated
    trains: bool = True  # else it evaluates a trained run, and its record keeps how long training took


class Running(Protocol):
    """A job that was started."""

    job: Job

    def ended(self) -> bool:
        """Whether it has ended and its record says how. Asked again and again."""

    def stop(self, *, at_once: bool = False) -> None:
        """Tell it to end, or end it."""


class Where(Protocol):
    """Where jobs run."""

    def has_room(self) -> bool:
        """Whether a job may start now."""

    def start(self, job: Job) -> Running | None:
        """Start a job; None as long as there is too little room for this one."""


def run_jobs(
    jobs: Iterable[Job], where: Where, finished: Callable[[Job], bool] = lambda _: False, pause: float = 0.05
) -> Iterator[Job]:
    """Start jobs in their order as slots become free, and yield each one that has ended.

    A job is taken from `jobs` only when there is room for it, so that results of earlier jobs may shape it. If the
    caller leaves early (an exception, a signal, `close()`), all running jobs are stopped.

    Args:
        jobs: What to run.
        where: Slots of this machine, or a cluster.
        finished: Whether nothing is left to do in a job; it is then yielded without being started.
        pause: Seconds between looks at the running jobs.
    """
    queue, running = iter(jobs), list[Running]()
    waiting: Job | None = None  # the next job, if there is a free slot but too little room for this one
    try:
        while True:
            while where.has_room():
                if waiting is None:
                    if (waiting := next(queue, None)) is None:
                        break
                    if finished(waiting):
                        LOG.info("%s: finished already", waiting.folder)
                        yield waiting
                        waiting = None
                        continue
                # It is not overtaken: smaller jobs would take each slot that is free, and a large one never begin.
                if (begun := where.start(waiting)) is None:
                    break
                if waiting.label:
                    LOG.info("%s: started (%s)", waiting.folder, waiting.label)
                running.append(begun)
                waiting = None
            if not running and waiting is None:
                return
            ended = [one for one in running if one.ended()]
            for one in ended:
                running.remove(one)
                if one.job.label:
                    record = read_record(one.job.folder)
                    LOG.info("%s: %s%s", one.job.folder, record.status, f": {record.why}" if record.why else "")
                yield one.job
            if not ended:
                time.sleep(pause)
    finally:
        _stop(running)


def _stop(running: Sequence[Running]) -> None:
    """Let all jobs end in order, at the same time; kill those that do not."""
    for one in running:
        one.stop()
    deadline = time.monotonic() + PATIENCE
    left = list(running)
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [one for one in left if not one.ended()]
    for one in left:
        one.stop(at_once=True)


class LocalJob:
    """A job that runs on this machine.

    If another process works in its folder, for example one that outlived its killed sweep, it waits for that one.

    Args:
        job: The job.
        share: Its share of the machine, which it gives back when it ends; what it prints then goes to `output.txt` in
            its folder. None: the whole machine, and what it prints is passed on.
        fork: Fork it from a process that has imported everything, in place of a new interpreter. Such a job ends with
            this process.
    """

    def __init__(self, job: Job, share: Share | None = None, *, fork: bool = False) -> None:
        self.job, self.share, self.fork, self.problem = job, share, fork, ""
        self.waited = self.stopping = False
        self.process: subprocess.Popen[str] | subprocess.Popen[bytes] | Fork | None = None
        self.copying: threading.Thread | None = None
        self._start()

    def ended(self) -> bool:
        """Whether it has ended and its record says how."""
        if self.process is None:
            over = self.stopping or self._start()
        else:
            over = (code := self.process.poll()) is not None
            if code is not None:
                if self.copying:
                    self.copying.join(timeout=5)  # not for ever: a rank that hangs may hold the stream open
                self._record(code)
        if over and self.share:
            self.share.give_back()
        return over

    def stop(self, *, at_once: bool = False) -> None:
        """Tell the process to end, or kill it; the job counts as unfinished."""
        self.stopping = True
        if self.process is not None:
            self.process.kill() if at_once else self.process.terminate()

    def _start(self) -> bool:
        """Start the process if the folder is free; whether another process has done the job in the meantime."""
        folder = self.job.folder
        if is_locked(folder):
            self.waited = True
            return False
        if self.waited and read_record(folder).status in DONE:
            return True
        if self.job.trains:
            write_record(folder, self.job.overrides, "started")
        self.began = time.monotonic()
        environment = {**without_ranks(os.environ), **(self.share.environment if self.share else {})}
        if self.share is None:
            self._run_in_foreground(environment)
        else:
            self._run_in_background(environment)
        return False

    def _run_in_foreground(self, environment: Mapping[str, str]) -> None:
        """What the job prints is passed on; its standard output may be a terminal."""
        command = [sys.executable, *self.job.command]
        # A byte that is no UTF-8 must not end the thread that copies, or the job blocks at a full pipe.
        self.process = process = subprocess.Popen(
            command, cwd=self.job.cwd, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )

        def copy() -> None:
            for line in process.stderr or ():
                sys.stderr.write(line)
                sys.stderr.flush()
                self.problem = problem_in(line) or self.problem

        self.copying = threading.Thread(target=copy, daemon=True)
        self.copying.start()

    def _run_in_background(self, environment: Mapping[str, str]) -> None:
        """What the job prints goes to a file in its folder."""
        output = self.job.folder / OUTPUT
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as file:
            # What an earlier try printed stays in the file, but is no problem of this one.
            self.printed_before = file.tell()
            if not self.fork:
                command = [sys.executable, *self.job.command]
                self.process = subprocess.Popen(
                    command, cwd=self.job.cwd, env=environment, stdout=file, stderr=subprocess.STDOUT
                )
                return
        self.process = Fork(target=run_module, args=(self.job.command[1:], self.job.cwd, environment, output))
        self.process.start()

    def _record(self, code: int) -> None:
        """Write down how the process ended."""
        job, before = self.job, read_record(self.job.folder)
        seconds = round(time.monotonic() - self.began, 1) if job.trains else before.seconds
        if code in STOPPED and job.trains:
            write_record(job.folder, job.overrides, "stopped", f"stopped by {STOPPED[code]}", seconds)
        elif code in STOPPED:
            return  # the run stays a trained one
        elif code:
            why = f"ended by signal {-code}" if code < 0 else self._problem() or f"exit code {code}"
            write_record(job.folder, job.overrides, "failed", why, seconds)
        elif before.status == "pruned":
            write_record(job.folder, job.overrides, "pruned", before.why, seconds)
        else:
            write_record(job.folder, job.overrides, "finished", "", seconds)

    def _problem(self) -> str:
        """What the job says last about what went wrong."""
        if self.share is None:
            return self.problem
        with (self.job.folder / OUTPUT).open("rb") as file:
            file.seek(self.printed_before)
            lines = file.read().decode(errors="replace").splitlines()
        return next(filter(None, map(problem_in, reversed(lines))), "")


def without_ranks(given: Mapping[str, str]) -> dict[str, str]:
    """An environment without what would make a process take itself for one of several ranks."""
    return {name: value for name, value in given.items() if not _RANKS.fullmatch(name)}


class Fork(ForkServerProcess):
    """A process that is forked from one that has imported everything, with the interface of `subprocess.Popen`."""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.exitcode


def run_module(command: Sequence[str], cwd: str, environment: Mapping[str, str], output: Path) -> None:
    """Do what `python -m MODULE ARGUMENTS >> OUTPUT 2>&1` does, in this process, which then ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    # The descriptors, not sys.stdout: libraries in C and processes that the job starts print there too.
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(command)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    # sys.exit would end this thread alone.
    os._exit(1)


class Foreground:
    """The whole machine for one job, whose output is passed on."""

    def has_room(self) -> bool:
        """Always; the caller starts one job at a time."""
        return True

    def start(self, job: Job) -> LocalJob:
        """Start a job."""
        return LocalJob(job)
