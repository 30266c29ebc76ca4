"""Logs what the epoch's maps look like, and keeps it for other callbacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from compseg.batches.augmentation import Batch
from compseg.monitor.diagnosis import Collector, Diagnosis, Reduce


class Diagnostics(Callback):
    """Gathers the epoch's `Diagnosis` and logs its scalars, `collapse/...` and the sample AUC by x.

    Attributes:
        latest: Of the last validation; the same on all ranks.
    """

    def __init__(self) -> None:
        self.collector = Collector()
        self.latest: Diagnosis | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an epoch that ended without validation."""
        del trainer, pl_module
        self.collector.clear()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Take x along."""
        del trainer, pl_module, batch_idx
        self.collector.add_training(batch["index"], outputs["x"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put what an unfinished epoch has gathered so far into the checkpoint."""
        del pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["diagnostics"] = self.collector.training_state(len(data.train), _over_ranks(trainer))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with it, on one rank, for it is what all of them had."""
        del pl_module
        if trainer.is_global_zero and (state := checkpoint.get("diagnostics")):
            self.collector.add_training(state["index"].tolist(), state["x"])

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take sums of the maps along."""
        del trainer, pl_module, batch_idx, dataloader_idx
        self.collector.add_validation(batch["index"], outputs["head"], batch["label"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up over the ranks and log."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        net: Any = pl_module
        d = self.latest = self.collector.finish(
            data.train.infos, data.val.infos, net.head.transfer, _over_ranks(trainer)
        )
        values = {
            "train/x_auc": d.train.auc,
            "val/x_auc": d.val.auc,
            "collapse/separation": d.val.separation,
            "collapse/saturated": d.saturated,
            "collapse/spread": d.of(d.spread, 1),
            "collapse/outside": float(np.mean([d.of(d.outside, label) for label in (0, 1)])),
        }
        # The same on all ranks already.
        pl_module.log_dict({name: value for name, value in values.items() if np.isfinite(value)}, rank_zero_only=False)


def _over_ranks(trainer: pl.Trainer) -> Reduce:
    return lambda sums: trainer.strategy.reduce(sums, reduce_op="sum")


def diagnosis_of(trainer: pl.Trainer) -> Diagnosis:
    """The last validation's, for callbacks that stand behind `Diagnostics`."""
    (source,) = (callback for callback in trainer.callbacks if isinstance(callback, Diagnostics))  # type: ignore[attr-defined]
    assert source.latest is not None
    return source.latest
