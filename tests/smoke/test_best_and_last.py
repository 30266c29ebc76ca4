"""Which epochs the checkpoints hold."""

from __future__ import annotations

import pytest
import torch

from compseg.training.callbacks import StopBetweenSteps
from running import Killed, history_of, tiny, train_here

EPOCHS = 4
QUIET = ("evaluation.split=none", "trainer.enable_progress_bar=false", "callbacks.pictures.every=0")


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "after", "among"), [("min", 0, 0), ("max", 0, 0), ("max", 0.5, 2), ("max", 0.99, 3)])
def test_last_is_the_last_epoch_and_best_the_best_of_those_that_may_be(trained, tmp_path, mode, after, among):
    options = (f"callbacks.best_and_last.mode={mode}", f"callbacks.best_and_last.after={after}")
    train_here(tmp_path, tiny(trained.cohort, tmp_path, f"trainer.max_epochs={EPOCHS}", *options, *QUIET))
    losses = {row["epoch"]: row["val/loss"] for row in history_of(tmp_path) if row["epoch"] >= among}
    chosen = {"min": min, "max": max}[mode]
    held = {
        name: torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert held == {"best": chosen(losses, key=losses.__getitem__), "last": EPOCHS - 1}


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "epoch"), [(0, 1), (1000, 0)])
def test_last_is_written_again_when_its_time_has_come(trained, tmp_path, monkeypatch, seconds, epoch):
    def killed(_, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise Killed

    arguments = tiny(
        trained.cohort, tmp_path, "trainer.max_epochs=3", f"callbacks.best_and_last.seconds={seconds}", *QUIET
    )
    with monkeypatch.context() as patch:
        patch.setattr(StopBetweenSteps, "on_train_epoch_start", killed)
        with pytest.raises(Killed):
            train_here(tmp_path, arguments)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == epoch
    train_here(tmp_path, [*arguments, "trainer.resume=auto"])
    assert [row["epoch"] for row in history_of(tmp_path)] == [0, 1, 2]
