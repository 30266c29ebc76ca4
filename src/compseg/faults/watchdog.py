"""A rank that is gone ends the others soon and in plain words, whatever they are waiting for."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.distributed import TCPStore  # type: ignore[attr-defined]

PERIOD = 1.0  # seconds between two looks
PATIENCE = 30.0  # seconds without a sign of life after which a rank is given up
_TRANSPORT = re.compile(r"gloo|nccl|process group|connection (reset|closed|refused)|broken pipe", re.IGNORECASE)

_LEFT, _FAILED = b"left", b"failed"

GO_ON = "start it again with trainer.resume=auto to go on from the last checkpoint"


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error comes from the transport between ranks: what a rank sees when another is gone."""
    kinds = (torch.distributed.DistBackendError, torch.distributed.DistNetworkError)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and bool(_TRANSPORT.search(str(error))))


class Watchdog(Callback):
    """A thread that ends this process if the process that started it, one that it started, or another rank is gone.

    The main thread may wait in a collective that never ends, so the thread does not ask it. Ranks show that they live
    by counting up a number each in the store at which they met; that says nothing of how long a step may take.

    Args:
        children: The processes that this one has started so far: the ranks from 1 on.
        complain: Prints the one line.
    """

    def __init__(
        self, children: Callable[[], Sequence[subprocess.Popen[bytes]]], complain: Callable[[str], None]
    ) -> None:
        self._children, self._complain = children, complain
        # Lightning and torchrun tell a rank that they start its LOCAL_RANK; what else starts it looks after it itself.
        self._parent = os.getppid() if "LOCAL_RANK" in os.environ else None
        self._ended = threading.Event()
        self._peers: Heartbeats | None = None
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

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
        if trainer.world_size > 1:
            self._peers = Heartbeats(trainer.global_rank, trainer.world_size)

    def release(self, *, in_order: bool = True) -> None:
        """Stop watching, and tell the other ranks that this one ends, in order or not."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._peers is not None:
            self._peers.leave(_LEFT if in_order else _FAILED)

    def _look(self) -> None:
        while not self._ended.wait(PERIOD):
            if lost := self._lost():
                self._end(lost)

    def _lost(self) -> str:
        if self._parent is not None and os.getppid() != self._parent:
            return "the process that started this rank is gone"
        for rank, child in enumerate(self._children(), 1):
            if code := child.poll():
                return f"rank {rank} (process {child.pid}) {_how(code)}"
        return self._peers.lost() if self._peers is not None else ""

    def _end(self, lost: str) -> None:
        # Who ends in order releases first, but this rank may have looked at the others just before it came to that.
        if self._ended.wait(PERIOD):
            return
        self._complain(f"{lost}, and no rank can train on alone; {GO_ON}")
        for child in self._children():
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


class Heartbeats(threading.Thread):
    """Signs of life of all ranks, in the store at which they met. A thread, for a lost store may never answer."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(name="signs of life", daemon=True)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own, for the process group's may be in use by a main thread that waits.
        self._store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=PATIENCE))
        prefix = f"compseg/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._keys = [f"{prefix}/alive/{other}" for other in range(world)]
        hosts = [f"{prefix}/host/{other}" for other in range(world)]
        self._mine = self._keys[rank]
        self._store.set(hosts[rank], socket.gethostname())
        self._store.add(self._mine, 1)
        self._store.wait([*self._keys, *hosts])
        self._hosts = [host.decode() for host in self._store.multi_get(hosts)]
        self._answered = time.monotonic()
        self._signs = [(b"", self._answered)] * world
        self._leaving, self._how = threading.Event(), _LEFT
        self.start()

    def run(self) -> None:
        """Give signs, and note those of the others, until this rank leaves."""
        with suppress(torch.distributed.DistError):  # no answer, and `lost` says so
            while not self._leaving.wait(PERIOD):
                self._store.add(self._mine, 1)
                signs, self._answered = self._store.multi_get(self._keys), time.monotonic()
                self._signs = [
                    old if old[0] == sign else (sign, self._answered)
                    for sign, old in zip(signs, self._signs, strict=True)
                ]
            self._store.set(self._mine, self._how.decode())

    def lost(self) -> str:
        """Who is gone; empty if nobody is."""
        now = time.monotonic()
        if not self.is_alive() or now - self._answered > PATIENCE:
            return "rank 0, at whose address the ranks have met, does not answer"
        for rank, (sign, since) in enumerate(self._signs):
            name = f"rank {rank} on {self._hosts[rank]}"
            if sign == _FAILED:
                return f"{name} ended with an error, which stands in its own output"
            if sign != _LEFT and now - since > PATIENCE:
                return f"{name} has given no sign of life for {PATIENCE:.0f} s"
        return ""

    def leave(self, how: bytes) -> None:
        """Tell the others, if there still is somebody to tell."""
        self._how = how
        self._leaving.set()
        self.join(2 * PERIOD)


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
