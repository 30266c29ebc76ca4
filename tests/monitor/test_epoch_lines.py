"""What is said of an epoch: a line of a terminal, the time that all of the training still takes, and a bar."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from compseg.monitor import EpochBar, History, bar
from compseg.monitor.history import line_of

FOUND = {
    f"{split}/{name}": 0.12345 for split in ("train", "val") for name in ("loss", "x_auc", "x_disease", "x_healthy")
}


def trainer(**more):
    return SimpleNamespace(
        **{"max_epochs": 15, "current_epoch": 3, "is_global_zero": True, "num_training_batches": 4} | more
    )


@pytest.mark.parametrize(
    ("logged", "line"),
    [
        (FOUND, "epoch 14  train loss 0.123  val loss 0.123 x_auc 0.123 x_disease 0.123 x_healthy 0.123"),
        ({"train/loss": 2.0}, "epoch 14  train loss 2.000"),
        ({"val/mine": 2.0}, "epoch 14"),
    ],
)
def test_a_line_of_an_epoch_fits_a_terminal(logged, line):
    assert line_of(14, logged) == line
    assert len(f"{line}  89 min left") <= 100


@pytest.mark.parametrize(
    ("seconds", "later", "epochs", "words"),
    [
        ([2.0] * 4, 0, 15, "  22 s left"),
        ([2.0] * 4, 2, 15, "  82 s left"),  # two more inits of 15 epochs
        ([90.0, *[2.0] * 5], 0, 15, "  18 s left"),  # the first compiles, and is forgotten
        ([2.0] * 15, 0, 15, ""),
        ([], 0, 15, ""),
        ([2.0], 0, -1, ""),
    ],
)
def test_the_time_left_is_of_the_whole_training(tmp_path, seconds, later, epochs, words):
    history = History(str(tmp_path / "history.csv"), later)
    history.rows = [{"seconds": str(value)} for value in seconds]
    assert history.left_in_words(trainer(max_epochs=epochs)) == words


def test_a_bar_goes_before_the_line_of_its_epoch(tmp_path, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(bar, "console", lambda: Console(file=shown, force_terminal=True, width=100))
    history = History(str(tmp_path / "history.csv"))
    history.rows = [{"seconds": "2"}] * 3
    one = EpochBar(history)
    one.on_train_epoch_start(trainer(), None)
    one.on_train_batch_end(trainer(), None, None, None, 0)
    one.bar.refresh()
    assert "epoch 3 of 15" in shown.getvalue()
    assert "24 s left" in shown.getvalue()
    one.on_train_epoch_end(trainer(), None)
    assert one.bar is None
    one.on_train_epoch_start(trainer(is_global_zero=False), None)
    assert one.bar is None
    one.on_train_batch_end(trainer(), None, None, None, 0)
    one.on_train_epoch_start(trainer(max_epochs=-1), None)
    one.on_exception(trainer(), None, KeyboardInterrupt())
    assert one.bar is None
