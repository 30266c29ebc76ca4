"""Ends this rank soon, and in plain words, when another is gone, even while it waits without end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.distributed import TCPStore  # type: ignore[attr-defined]

PERIOD = 1.0  # seconds from one check to the next
PATIENCE = 30.0  # seconds without a heartbeat after which a rank is given up
_TRANSPORT = re.compile(r"gloo|nccl|process group|connection (reset|closed|refused)|broken pipe", re.IGNORECASE)
_LEFT, _FAILED = "left", "failed"

HOW_TO_CONTINUE = "start it again with trainer.resume=auto to continue from the last checkpoint"


def has_launcher(environment: Mapping[str, str]) -> bool:
    """Whether torchrun or rank 0 has started this process, and should outlive it; a shell need not.

    Lightning's launcher is in rank 0, whose own LOCAL_RANK becomes 0 when it starts the others.
    """
    return "TORCHELASTIC_RUN_ID" in environment or int(environment.get("LOCAL_RANK", "0")) > 0


def torchrun_has_all(environment: Mapping[str, str]) -> bool:
    """Whether one torchrun has started all ranks: it ends the others when one ends."""
    return "TORCHELASTIC_RUN_ID" in environment and environment["LOCAL_WORLD_SIZE"] == environment["WORLD_SIZE"]


# Decided when the process starts: training changes the environment, and a parent that is gone is replaced by another.
PARENT = os.getppid() if has_launcher(os.environ) else None
HEARTBEATS = not torchrun_has_all(os.environ)


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error comes from the transport between ranks: what a rank sees when another is gone."""
    kinds = (torch.distributed.DistBackendError, torch.distributed.DistNetworkError)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and bool(_TRANSPORT.search(str(error))))


class Watchdog(Callback):
    """A thread that ends this process if the process that started it, one that it started, or another rank is gone.

    The main thread may wait in a collective that never ends, so the thread does not depend on it. Ranks show that they
    live by heartbeats in the store where they met; these say nothing about how long a step may take.

    There are no heartbeats where one torchrun has started all ranks. It does not know of the ranks of another machine's
    torchrun, and SLURM ends the others only where it is told to (`srun --kill-on-bad-exit`): there they are needed.

    Args:
        children: The processes that this one has started so far: the ranks from 1 on.
        report: Prints the one line.
    """

    def __init__(
        self, children: Callable[[], Sequence[subprocess.Popen[bytes]]], report: Callable[[str], None]
    ) -> None:
        self._children, self._report = children, report
        self._ended = threading.Event()
        self._heartbeats: Heartbeats | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(in_order=error is None)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watch the other ranks too, from now on: the process group is there."""
        del pl_module, stage
        if trainer.world_size > 1 and HEARTBEATS:
            # A process may train several times, and torchrun's store outlives it: each fit has keys of its own.
            fit: str = trainer.strategy.broadcast(uuid.uuid4().hex)
            self._heartbeats = Heartbeats(trainer.global_rank, trainer.world_size, fit)

    def release(self, *, in_order: bool = True) -> None:
        """Stop watching, and tell the other ranks that this one ends, in order or not."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._heartbeats is not None:
            self._heartbeats.leave(_LEFT if in_order else _FAILED)

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD):
            # A rank that ends in order releases first, but this check may have come just before that.
            if (lost := self._lost()) and not self._ended.wait(PERIOD):
                self._end(lost)

    def _lost(self) -> str:
        """Who is gone, and how; empty if nobody is."""
        if PARENT is not None and os.getppid() != PARENT:
            return "the process that started this rank is gone"
        for rank, child in enumerate(self._children(), 1):
            if code := child.poll():
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"rank {rank} (process {child.pid}) {how}"
        return self._heartbeats.lost() if self._heartbeats is not None else ""

    def _end(self, lost: str) -> None:
        self._report(f"{lost}, and no rank can train on alone; {HOW_TO_CONTINUE}")
        for child in self._children():
            # Not SIGTERM, which a rank only notes while it trains (`StopSignals.remembered`).
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        # `sys.exit` would end this thread alone, and the main thread may never return from its collective.
        os._exit(1)


class Heartbeats(threading.Thread):
    """Signs of life of all ranks, in the store where they met. A thread, for a lost store may never answer.

    Args:
        rank: This process.
        world: Number of processes.
        fit: A word that all ranks share and no other fit has: the store may outlive this one.
    """

    def __init__(self, rank: int, world: int, fit: str) -> None:
        super().__init__(name="heartbeats", daemon=True)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own: the process group's may be in use by a main thread that waits.
        self._store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=PATIENCE))
        # A key holds counts or words, never both: the store refuses to add to a word.
        hosts, self._beats, self._ends = (
            [f"compseg/{fit}/{what}/{rank}" for rank in range(world)] for what in ("host", "beat", "end")
        )
        self._beat, self._end = self._beats[rank], self._ends[rank]
        self._store.set(hosts[rank], socket.gethostname())
        self._store.set(self._end, "")
        self._store.add(self._beat, 1)
        self._store.wait([*hosts, *self._ends, *self._beats])
        self._hosts = [host.decode() for host in self._store.multi_get(hosts)]
        self._answered = time.monotonic()
        self._seen = [(b"", self._answered)] * world  # of each rank: its last beat, and when it was new
        self._how = [""] * world  # it ended; empty: it has not
        self._leaving, self._word = threading.Event(), _LEFT
        self.start()

    def run(self) -> None:
        """Beat, and note the beats of the others, until this rank leaves."""
        with suppress(torch.distributed.DistError):  # no answer, and `lost` says so
            while not self._leaving.wait(PERIOD):
                self._store.add(self._beat, 1)
                beats, ends = self._store.multi_get(self._beats), self._store.multi_get(self._ends)
                self._answered = time.monotonic()
                self._how = [end.decode() for end in ends]
                self._seen = [
                    old if old[0] == beat else (beat, self._answered)
                    for beat, old in zip(beats, self._seen, strict=True)
                ]
            self._store.set(self._end, self._word)

    def lost(self) -> str:
        """Who is gone; empty if nobody is."""
        now = time.monotonic()
        if not self.is_alive() or now - self._answered > PATIENCE:
            return "rank 0, at whose address the ranks have met, does not answer"
        for rank, ((_, since), how) in enumerate(zip(self._seen, self._how, strict=True)):
            name = f"rank {rank} on {self._hosts[rank]}"
            if how == _FAILED:
                return f"{name} ended with an error, which is in its own output"
            if how != _LEFT and now - since > PATIENCE:
                return f"{name} has given no sign of life for {PATIENCE:.0f} s"
        return ""

    def leave(self, word: str) -> None:
        """Tell the others, if there is somebody left to tell."""
        self._word = word
        self._leaving.set()
        self.join(2 * PERIOD)
