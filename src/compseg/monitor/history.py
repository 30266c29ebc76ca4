"""A history of epochs that survives a resume."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from compseg.files import csv_text, write_checked
from compseg.log import log
from compseg.run_folder import read_history


class History(Checkpoint):
    """`history.csv`: a row per epoch with every logged number, the learning rate and the seconds it took.

    Written whole and atomically after each epoch; a resumed run keeps the rows before the epoch that it resumes at. It
    derives from Lightning's `Checkpoint` marker because those callbacks alone run after the module has logged its
    epoch.

    Args:
        path: Of the CSV file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, str]] = []
        self.started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the rows of earlier epochs in a resumed run; start the clock, also in the middle of an epoch."""
        del pl_module
        self.started = time.perf_counter()
        if trainer.current_epoch:
            # A run that was killed between row and checkpoint repeats the epoch, whose row is there already.
            before = read_history(self.path.parent)
            self.rows = [row for row in before if float(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row and write the file."""
        del pl_module
        if not trainer.is_global_zero:
            return
        logged = {name: float(value) for name, value in sorted(trainer.logged_metrics.items()) if "/" in name}
        row = {
            "epoch": trainer.current_epoch,
            **logged,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self.started, 3),
        }
        self.rows.append({name: str(value) for name, value in row.items()})
        # Columns of all rows: validation may not run in every epoch.
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        write_checked(self.path, csv_text(columns, ([row.get(name, "") for name in columns] for row in self.rows)))
        if not sys.stderr.isatty():  # a log file gets a line per epoch where a terminal has its progress bar
            shown = {name: value for name, value in logged.items() if name.startswith(("train/", "val/"))}
            log(f"epoch {row['epoch']}  " + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()))
