"""What training needs at each step and epoch: seeds, one state of the batch norms on all ranks, and ends in order."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from compseg.batches import Batch
from compseg.cohort import REPLACED, Cohort
from compseg.errors import CompsegError
from compseg.faults import StopSignals
from compseg.faults.watchdog import Watchdog
from compseg.log import log
from compseg.private import cluster_environment
from compseg.run_folder import CHECKPOINTS, FINGERPRINT, LAST


class SeedEachStep(Callback):
    """Seed torch from `(seed, epoch, step, rank)` when a step starts.

    So dropout after a resume, in the middle of an epoch too, gives what it would have given.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Seed the generators of this process."""
        del pl_module, batch
        # Hashes of numbers are the same in every process; those of words are not.
        torch.manual_seed(hash((self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)) % 2**63)


class CohortWatch(Callback):
    """Ends a run whose cohort is replaced under it, before a checkpoint has learned from two; see `Cohort`."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether it is still there.

        Raises:
            CompsegError: Another one is in its place.
        """
        del pl_module
        cohort = cohort_of(trainer)
        # One rank is enough: where it ends, the watchdogs of the others end those.
        if trainer.is_global_zero and not cohort.is_unchanged():
            raise CompsegError(
                f"{cohort.path}: {REPLACED}; put the old one back and continue with trainer.resume=auto, "
                "or train in a new folder"
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the cohort's fingerprint beside the weights."""
        del pl_module
        checkpoint[FINGERPRINT] = cohort_of(trainer).fingerprint


def cohort_of(trainer: pl.Trainer) -> Cohort:
    """The cohort that is trained on."""
    cohort: Cohort = trainer.datamodule.cohort  # type: ignore[attr-defined]
    return cohort


class SyncBatchNormStatistics(Callback):
    """Averages the running statistics of batch norms over the ranks, before validation and at the end of an epoch.

    Each rank gathers them from its own batches. Without this the ranks would validate different networks, and a
    checkpoint, which has those of rank 0, would not bring back the others'. A running average is linear in what it
    averages, so how often the ranks' are averaged too does not change the result.
    """

    runs_last = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average, so that all ranks validate the same network."""
        average_statistics(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average, for an epoch that ends without validation."""
        average_statistics(trainer, pl_module)


def average_statistics(trainer: pl.Trainer, module: nn.Module) -> None:
    """Set the running means and variances of all batch norms to their means over the ranks."""
    named = ("running_mean", "running_var")
    statistics = [values for name, values in module.named_buffers() if name.rpartition(".")[2] in named]
    if statistics and trainer.world_size > 1:
        # As one vector: one collective for all layers, not two for each.
        mean: Any = trainer.strategy.reduce(parameters_to_vector(statistics), reduce_op="mean")
        vector_to_parameters(mean, statistics)


class StopBetweenSteps(Callback):
    """After a signal: finish the step, write `last.ckpt`, stop. All ranks do so after the same step.

    Every step asks all ranks whether one of them got a signal, for a signal may come to one alone. A run that continues
    from such a checkpoint takes the next step of the same epoch. A signal during validation waits for its end.

    Args:
        signals: What has come.
        watch: Told before this rank ends.
    """

    runs_last = True

    def __init__(self, signals: StopSignals, watch: Watchdog) -> None:
        self.signals, self.watch = signals, watch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Stop here unless gradients are being accumulated or the epoch, which ends with a checkpoint, is over."""
        del outputs, batch
        step = batch_idx + 1
        # `_asked` comes last: it is a collective, and what stands before it is the same on all ranks.
        if trainer.is_last_batch or step % trainer.accumulate_grad_batches or not self._asked(trainer):
            return
        # The checkpoint has the statistics of rank 0; those of the others would be lost.
        average_statistics(trainer, pl_module)
        trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / LAST)
        self._stop(trainer, f" in epoch {trainer.current_epoch} after step {step} of {trainer.num_training_batches}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the epoch's checkpoint written; callbacks that write one come after this."""
        del pl_module
        trainer.stops = self._asked(trainer)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs if the checkpoint of the last one was written for that; else after the first step."""
        del pl_module
        if trainer.stops:  # type: ignore[attr-defined]
            self._stop(trainer, f" before epoch {trainer.current_epoch}")

    def _asked(self, trainer: pl.Trainer) -> bool:
        # No reduction on one device: reading its result would have the host wait for the device in each step.
        if trainer.world_size == 1:
            return self.signals.received is not None
        mine = torch.tensor(self.signals.received or 0, device=trainer.strategy.root_device)
        # The highest, because ranks may have got different signals and have to end alike.
        if number := int(trainer.strategy.reduce(mine, reduce_op="max")):
            self.signals.received = signal.Signals(number)
        return number > 0

    def _stop(self, trainer: pl.Trainer, done: str) -> None:
        requeue(trainer, self.signals)
        # Nobody ends before all are here: torchrun ends the others as soon as one has ended.
        trainer.strategy.barrier("stop")
        # Before the exception, which leaving the watchdog would report as a failure of this rank.
        self.watch.release()
        raise self.signals.stopped(done)


def requeue(trainer: pl.Trainer, signals: StopSignals) -> None:
    """Put the job back into SLURM's queue if SLURM has asked by the signal that Lightning has it send for that.

    Lightning would do so by itself, but save in the middle of a step, and on one rank while another is elsewhere.
    """
    environment = cluster_environment(trainer)
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return
    if signals.received is environment.requeue_signal and trainer.is_global_zero:
        job = os.environ["SLURM_JOB_ID"]
        if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
            job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        # Unchecked: a queue that refuses must not hide the line that says how to continue.
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
        log(f"SLURM job {job}: " + (f"scontrol requeue failed with exit code {code}" if code else "back in the queue"))
