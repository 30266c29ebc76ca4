"""A job of a search stops early if its metrics are poor beside those of other jobs."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.callbacks import Callback

from compseg.errors import CompsegError
from compseg.evaluation.names import lower_is_better
from compseg.studies.record import mark_pruned
from compseg.studies.search import load_study, trial_of_job

if TYPE_CHECKING:
    from optuna import Trial


class Pruning(Callback):
    """Reports the metric `hydra.sweeper.prune_by` to the study after each epoch, and stops when its pruner says so.

    Rank zero asks; all ranks stop after the same epoch. A job that is repeated outside of its search is not pruned.
    """

    def __init__(self) -> None:
        self.settings: Any = None  # of the search; None outside of one
        self.trial: Trial | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the trial of this job."""
        del pl_module
        hydra = HydraConfig.get()
        if "storage" not in hydra.sweeper:
            return
        self.settings, self.folder = hydra.sweeper, Path(hydra.runtime.output_dir)
        if trainer.is_global_zero:
            self.trial = trial_of_job(load_study(self.settings), Path(hydra.sweep.dir), hydra.job.num)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and stop if the pruner says so."""
        del pl_module
        if self.settings is None:
            return
        poor = self.trial is not None and self._is_poor(trainer)
        # On every rank and after every epoch: a broadcast waits for all, and after it all stop or none.
        if trainer.strategy.broadcast(poor):
            trainer.should_stop = True

    def _is_poor(self, trainer: pl.Trainer) -> bool:
        assert self.trial is not None
        name, epoch = self.settings.prune_by, trainer.current_epoch
        if name not in trainer.callback_metrics:
            known = ", ".join(sorted(key for key in trainer.callback_metrics if key.startswith("val/")))
            raise CompsegError(f"hydra.sweeper.prune_by={name}: no such metric while training; metrics: {known}")
        value = float(trainer.callback_metrics[name])
        # Pruners compare in the study's direction, which may not be the direction of this metric.
        same_way = lower_is_better(name) == (self.trial.study.direction.name == "MINIMIZE")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch that is repeated after a restart was reported before
            self.trial.report(value if same_way else -value, epoch)
        # After the last epoch nothing is saved by stopping, only the evaluation lost.
        last = trainer.max_epochs is not None and epoch + 1 >= trainer.max_epochs
        if last or not (math.isnan(value) or self.trial.should_prune()):
            return False
        mark_pruned(self.folder, f"after epoch {epoch}, {name} {value:.4g}")
        return True
