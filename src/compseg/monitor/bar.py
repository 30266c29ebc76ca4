"""How far an epoch is, on a terminal: a line that goes when the epoch's own line comes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from compseg.log import console
from compseg.monitor.history import History


class EpochBar(Callback):
    """Epochs, steps of this one, and the time that is left of the whole training.

    Args:
        history: Knows how long epochs take.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.bar: Progress | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show it."""
        del pl_module
        self.hide()
        if not trainer.is_global_zero:
            return
        epochs = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        # Twice a second: the thread that shows it takes time from those that compute.
        self.bar = Progress(*columns, console=console(), transient=True, refresh_per_second=2)
        steps, shown = int(trainer.num_training_batches), self.history.left_in_words(trainer)
        self.bar.add_task(f"epoch {trainer.current_epoch}{epochs}", total=steps, left=shown)
        self.bar.start()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """A step more."""
        if self.bar:
            self.bar.advance(self.bar.task_ids[0])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make room for the lines about the epoch."""
        del trainer, pl_module
        self.hide()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        del trainer, pl_module, exception
        self.hide()

    def hide(self) -> None:
        """Take it away."""
        if self.bar:
            self.bar.stop()
            self.bar = None
