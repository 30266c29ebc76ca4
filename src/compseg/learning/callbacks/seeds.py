"""Random numbers that do not depend on restarts."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class SeedEachEpoch(Callback):
    """Seed torch from `(seed, epoch, rank)` when an epoch starts.

    So dropout after a resume draws what it would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the generators of this process."""
        del pl_module
        torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)
