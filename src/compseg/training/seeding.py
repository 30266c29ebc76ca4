"""Random numbers that do not depend on restarts."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class SeedEachStep(Callback):
    """Seed torch from `(seed, epoch, step, rank)` when a step starts.

    So dropout after a resume, in the middle of an epoch too, draws what it would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of this process."""
        del pl_module, batch
        torch.manual_seed(hash((self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)) % 2**63)
