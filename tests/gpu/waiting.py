"""A callback that finds where a training step has the host wait for the GPU."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class Waiting(Callback):
    """Looks at the epochs after the first, in which kernels are compiled and caches filled.

    Attributes:
        found: Where steps have waited, for whoever runs the training in the same process.
    """

    found: list[str] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch:
            warnings.simplefilter("always")
            warnings.showwarning = self._show
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            torch.cuda.set_sync_debug_mode("default")

    def _show(self, message: Warning | str, *args: Any, **kwargs: Any) -> None:
        if "synchronizing" in str(message):
            places = [f"{frame.filename}:{frame.lineno} {frame.line}" for frame in traceback.extract_stack()]
            self.found.append("\n".join(places[-9:-1]))
