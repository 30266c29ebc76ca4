"""Preemption: a signal ends a run in order, and the run goes on later as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import Callback

from compseg.errors import Stopped
from compseg.learning.say import say
from compseg.learning.statistics import average_statistics
from compseg.learning.trainer import CHECKPOINTS
from compseg.learning.watch import Watch

# `kill`, a queue's time limit or a container's end; SLURM as Lightning asks it to; SLURM as submitit asks it to.
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
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
        """Inside, a signal raises `Stopped`, unless `remembered` says otherwise."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python hands signals to the main thread alone
            return
        before = {number: signal.signal(number, self._handle) for number in STOPS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Inside, a signal is written down and nothing else: the ranks have to stop at the same step."""
        self._remembers = True
        try:
            yield
        finally:
            self._remembers = False

    def stopped(self, done: str = "") -> Stopped:
        """The exception to raise; `done` says how far the run is."""
        assert self.received is not None
        mend = f"the same command with hydra.run.dir={self.run} trainer.resume=auto goes on"
        return Stopped(f"stopped by {self.received.name}{done}; {mend}", 128 + self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received, self._since = signal.Signals(number), time.monotonic()
            if not self._remembers:
                raise self.stopped()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started inside do not hear the signals.

    A queue may signal all processes of a job at once, and a rank needs its helpers to finish the step.
    """
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # children start with what is blocked here
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def deaf_forkserver() -> BaseContext:
    """A clean process that loader workers are forked from; it and they do not hear the signals."""
    with deaf():
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # it lets SIGTERM in again
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


def deaf_compilers() -> None:
    """Start the processes in which torch compiles for a GPU; they do not hear the signals.

    Where one is ended, torch waits for it without end.
    """
    with deaf():
        from torch._inductor.async_compile import AsyncCompile  # seconds, for those who compile

        AsyncCompile.warm_pool()


class StopBetweenSteps(Callback):
    """After a signal: finish the step, write `last.ckpt`, stop. All ranks do so after the same step.

    Every step asks all ranks whether one of them got a signal, for a signal may reach one alone. A run that goes on
    from such a checkpoint takes the next step of the same epoch. A signal during validation waits for its end.

    Args:
        signals: What has come.
        watch: Told before this rank ends.
    """

    def __init__(self, signals: StopSignals, watch: Watch) -> None:
        self.signals, self.watch = signals, watch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here unless gradients are being accumulated or the epoch, which ends with a checkpoint, is over."""
        del outputs, batch
        step = batch_idx + 1
        if trainer.is_last_batch or step % trainer.accumulate_grad_batches or not self._asked(trainer):
            return
        average_statistics(trainer, pl_module)
        trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / "last.ckpt")
        self._stop(trainer, f" in epoch {trainer.current_epoch} after step {step} of {trainer.num_training_batches}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the epoch's checkpoint written; callbacks that write one come after this."""
        del pl_module
        trainer.stops = self._asked(trainer)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs if the checkpoint of the last one was written for that; else after the first step."""
        del pl_module
        if trainer.stops:  # type: ignore[attr-defined]
            self._stop(trainer, f" before epoch {trainer.current_epoch}")

    def _asked(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.signals.received is not None
        mine = torch.tensor(self.signals.received or 0, device=trainer.strategy.root_device)
        if number := int(trainer.strategy.reduce(mine, reduce_op="max")):
            self.signals.received = signal.Signals(number)
        return number > 0

    def _stop(self, trainer: pl.Trainer, done: str) -> None:
        requeue(trainer, self.signals)
        trainer.strategy.barrier("stop")
        self.watch.release()
        raise self.signals.stopped(done)


def requeue(trainer: pl.Trainer, signals: StopSignals) -> None:
    """Put the job back into SLURM's queue if SLURM has asked by the signal that Lightning has it send for that.

    Lightning would do so by itself, but save in the middle of a step, and on one rank while another is elsewhere.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return
    if signals.received is environment.requeue_signal and trainer.is_global_zero:
        job = os.environ["SLURM_JOB_ID"]
        if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
            job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
        say(f"SLURM job {job}: " + (f"scontrol requeue failed with exit code {code}" if code else "back in the queue"))
