"""Which epochs the checkpoints hold."""

from __future__ import annotations

import pytest
import torch

from running import history_of, tiny, train_here

EPOCHS = 4
QUIET = ("evaluate=false", "trainer.enable_progress_bar=false", "callbacks.pictures.every=0")


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
