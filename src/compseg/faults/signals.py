"""Preemption: a signal ends a run in order, and the run continues later as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from types import FrameType

from compseg.errors import Stopped

# Ctrl-C; `kill`, a queue's time limit or a container's end; SLURM as Lightning asks it to, and as submitit asks it to.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# A queue may signal a process and its parent at once, and the parent passes it on: that is one request, not two.
ECHO_SECONDS = 5.0


class StopSignals:
    """Signals that ask a run to end. A second one, later than an echo of the first, ends it at once.

    Args:
        run: The run folder, which the message names.

    Attributes:
        received: The signal that has come; None as long as there is none.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.received: signal.Signals | None = None
        self._since = 0.0
        self._remembers = False

    @contextmanager
    def caught(self) -> Iterator[StopSignals]:
        """Inside, a signal raises `Stopped`, except inside `remembered`."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python gives signals to the main thread alone
            return
        # A shell has its jobs in the background ignore Ctrl-C, which is meant for another.
        heard = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._handle) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Inside, a signal is only noted: the ranks have to stop at the same step."""
        self._remembers = True
        try:
            yield
        finally:
            self._remembers = False

    def stopped(self, done: str = "") -> Stopped:
        """The exception to raise; `done` says how far the run is."""
        assert self.received is not None
        fix = f"the same command with hydra.run.dir={self.run} trainer.resume=auto continues it"
        return Stopped(f"stopped by {self.received.name}{done}; {fix}", 128 + self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received, self._since = signal.Signals(number), time.monotonic()
            if not self._remembers:
                raise self.stopped()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            # By the default action, so that the parent process sees that this signal ended it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes that are started inside have the signals blocked.

    A queue may signal all processes of a job at once, and a rank needs its helpers to finish the step.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forkserver_with_signals_blocked() -> BaseContext:
    """A clean process that loader workers are forked from; both have the signals blocked."""
    with signals_blocked():
        # First, because the forkserver would start it just before itself.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # the tracker's start unblocks SIGTERM
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


def start_compilers_with_signals_blocked() -> None:
    """Start the processes in which torch compiles for a GPU, with the signals blocked.

    torch waits without end for a compiler that was ended.
    """
    from compseg.private import start_compilers  # torch, which the verbs import later

    with signals_blocked():
        start_compilers()
