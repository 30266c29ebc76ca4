"""A callback that sends a real signal at a chosen step: `+callbacks.signalled={_target_: signalled.SignalAt, ...}`."""

from __future__ import annotations

import os
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class SignalAt(Callback):
    """Sends this process, if it has the rank, a signal when a step is done.

    Args:
        number: The signal.
        epoch: Of the step.
        step: From 0.
        rank: Whose process.
    """

    def __init__(self, number: int, epoch: int, step: int, rank: int = 0) -> None:
        self.number, self.at, self.rank = number, (epoch, step), rank

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank == self.rank and (trainer.current_epoch, batch_idx) == self.at:
            os.kill(os.getpid(), self.number)


def signal_at(number: int, epoch: int, step: int, rank: int = 0) -> str:
    """The argument of a verb."""
    values = f"number: {int(number)}, epoch: {epoch}, step: {step}, rank: {rank}"
    return f"+callbacks.signalled={{_target_: signalled.SignalAt, {values}}}"
