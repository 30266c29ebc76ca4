"""A history of epochs that survives a resume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from compseg.files import csv_text, write_checked
from compseg.log import in_words, log
from compseg.run_folder import read_history

PACE = 5  # epochs whose mean tells how long the others will take
SHOWN = {"train": ("loss",), "val": ("loss", "x_auc", "x_disease", "x_healthy")}


class History(Checkpoint):
    """`history.csv`: a row per epoch with every logged number, the learning rate and the seconds it took.

    Written whole and atomically after each epoch; a resumed run keeps the rows before the epoch that it resumes at. It
    derives from Lightning's `Checkpoint` marker because those callbacks alone run after the module has logged its
    epoch.

    Args:
        path: Of the CSV file.
        later: Trainings as long as this one that come after it.
    """

    def __init__(self, path: str, later: int = 0) -> None:
        self.path, self.later = Path(path), later
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
        log(line_of(trainer.current_epoch, logged) + self.left_in_words(trainer))

    def left_in_words(self, trainer: pl.Trainer) -> str:
        """`  2 min left`, of this training and those after it, by the last epochs; empty while nothing is known."""
        epochs, last = trainer.max_epochs or -1, [float(row["seconds"]) for row in self.rows[-PACE:]]
        if epochs < 0 or not last:
            return ""
        left = (epochs - len(self.rows) + epochs * self.later) * fmean(last)
        return f"  {in_words(left)} left" if left else ""


def line_of(epoch: int, logged: Mapping[str, float]) -> str:
    """An epoch in a line of a terminal; `history.csv` has the rest."""
    words = [f"epoch {epoch}"]
    for split, names in SHOWN.items():
        values = [f"{name} {logged[f'{split}/{name}']:.3f}" for name in names if f"{split}/{name}" in logged]
        words += [f"{split} {' '.join(values)}"] if values else []
    return "  ".join(words)
