"""Which checkpoints a run writes, and how: the best and the last, each whole or absent."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from compseg.files import atomic_torch
from compseg.run_folder import BEST, CHECKPOINTS, LAST


class BestAndLast(ModelCheckpoint):
    """`checkpoints/best.ckpt` by a monitored metric and `checkpoints/last.ckpt`, after an epoch.

    Args:
        monitor: A logged metric of the validation samples.
        mode: `min` or `max`.
        after: Share of the epochs that pass before one may be the best, in [0, 1). While steps are large, the metric
            of few validation samples jumps, and the lowest is a matter of luck.
        seconds: Least time from one `last.ckpt` to the next, because on a GPU writing it may take longer than
            an epoch.
            A run that is killed has that and an unfinished epoch to do again; one that is asked to end has not.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", after: float = 0.0, seconds: float = 10.0) -> None:
        # On an H200 an epoch of the paper's takes .19 s, and a checkpoint .2 to .65 s (docs/research/lab-log.md).
        self.after, self.seconds, self._written = after, seconds, -math.inf
        # Saved when the epoch has ended, validation included: a resumed run starts at the next epoch, not in the middle
        # of this one.
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename=BEST.removesuffix(".ckpt"),
            save_on_train_epoch_end=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep checkpoints in the run folder, wherever a logger keeps its files."""
        self.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, and as the best if it is; Lightning would save the last one only where it is the best."""
        epochs, done = max(trainer.max_epochs or 0, 0), trainer.current_epoch + 1
        # The last one may be the best in any case: a run must have one.
        if done > self.after * epochs or done == epochs or trainer.should_stop:
            super().on_train_epoch_end(trainer, pl_module)
        if self._due(trainer):
            trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / LAST)
            self._written = time.monotonic()

    def _due(self, trainer: pl.Trainer) -> bool:
        ends = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        waited = time.monotonic() - self._written >= self.seconds
        # Ranks write one checkpoint together, and their clocks differ.
        due: bool = trainer.strategy.broadcast(ends or waited or getattr(trainer, "stops", False))
        return due


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is whole and on the disk.

    Lightning writes it to the folder for temporary files, which is another disk as a rule: it is then copied into its
    place, and where that disk is full, or the process killed meanwhile, the last good checkpoint is gone.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Write one."""
        atomic_torch(path, checkpoint)
