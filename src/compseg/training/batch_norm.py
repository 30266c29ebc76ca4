"""Batch statistics that are the same on all ranks whenever somebody looks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


class SyncBatchNormStatistics(Callback):
    """Averages the running statistics of batch norms over the ranks, before validation and at the end of an epoch.

    Each rank gathers them from its own batches. Left so, the ranks would validate different networks, and a checkpoint,
    which has those of rank 0, would not bring back the others'. A running average is linear in what it averages: how
    often the ranks' are averaged too does not change the result.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average, for all ranks to validate the same network."""
        average_statistics(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average, for an epoch that ends without validation."""
        average_statistics(trainer, pl_module)


def average_statistics(trainer: pl.Trainer, module: nn.Module) -> None:
    """Set the running means and variances of all batch norms to their means over the ranks."""
    parts = [part for part in module.modules() if getattr(part, "running_mean", None) is not None]
    statistics: list[Any] = [values for part in parts for values in (part.running_mean, part.running_var)]
    if statistics and trainer.world_size > 1:
        mean: Any = trainer.strategy.reduce(parameters_to_vector(statistics), reduce_op="mean")
        vector_to_parameters(mean, statistics)
