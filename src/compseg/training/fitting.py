"""Lightning's fit, with ends that are sound: by a signal, and by the loss of a rank."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from compseg.batches.datamodule import CohortData
from compseg.batches.loader import end_workers
from compseg.errors import CompsegError, Stopped
from compseg.faults.signals import StopSignals
from compseg.faults.watchdog import HOW_TO_CONTINUE, PERIOD, Watchdog, is_lost_contact
from compseg.training.batch_norm import SyncBatchNormStatistics
from compseg.training.module import CompSegNet
from compseg.training.stop import StopBetweenSteps
from compseg.training.trainer import Trainer


def fit(trainer: Trainer, module: CompSegNet, data: CohortData, checkpoint: Path | None, signals: StopSignals) -> None:
    """Train. On return all ranks are done; the process group stays for the next fit of this process.

    torchrun's store outlives a process group, and a second one would find the addresses of the first in it.

    Args:
        trainer: Of this rank.
        module: To train.
        data: Its batches.
        checkpoint: To go on from; None: from the start.
        signals: Those that ask the run to stop.

    Raises:
        Stopped: After a signal, on rank zero; other ranks leave by `SystemExit` with the same exit code.
        CompsegError: If another rank is gone.
    """
    watch = Watchdog(lambda: trainer.children, complain)
    # Last, so that what the others make of a step is in the checkpoint.
    trainer.callbacks += [SyncBatchNormStatistics(), watch, StopBetweenSteps(signals, watch)]  # type: ignore[attr-defined]
    with watch, signals.remembered():
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            trainer.strategy.barrier("fitted")
        except Stopped as stopped:
            if trainer.global_rank:
                raise SystemExit(stopped.exit_code) from None
            raise
        except RuntimeError as error:
            if trainer.world_size == 1 or not is_lost_contact(error):
                raise
            time.sleep(3 * PERIOD)  # the watch has the first word, for it may know which rank and why
            raise CompsegError(f"lost contact with another rank; its own output says why; {HOW_TO_CONTINUE}") from error
        finally:
            end_workers()
    if signals.received is not None:
        raise signals.stopped(" when training had ended, before its evaluation")


def complain(message: str) -> None:
    """The line that a verb prints of a fault; from a thread, where an exception would not reach it."""
    print(f"compseg train: {message}", file=sys.stderr, flush=True)
