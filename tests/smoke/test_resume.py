"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from compseg.training import BestAndLast
from running import HANGS, Killed, command, environment, history_of, run_verb, succeed, tiny, train_here

EPOCHS = 6
# Dropout, turns and shuffles all draw random numbers; none may depend on where the run was broken.
OPTIONS = (f"trainer.max_epochs={EPOCHS}", "model.dropout=0.3", "evaluation.split=none")


def numbers(run: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history_of(run)]


def kill_after(rows: int, arguments: list[str], run: Path) -> None:
    """Start a training run and kill it, without warning, in the epoch after `rows` epochs are done."""
    process = subprocess.Popen(
        command("train", *arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + HANGS
    while not ((run / "checkpoints/last.ckpt").exists() and len(history_of(run)) >= rows):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken(trained, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # Slow epochs down a little, so that the kill falls into one of them.
    slower = ("data.cache=none", "data.source.size=20", "model.width=48")
    succeed("train", *tiny(trained.cohort, whole, *OPTIONS, *slower))
    arguments = tiny(trained.cohort, broken, *OPTIONS, *slower)
    kill_after(2, arguments, broken)
    done_before = len(history_of(broken))
    assert 2 <= done_before < EPOCHS
    succeed("train", *arguments, "trainer.resume=auto")

    unbroken, resumed = numbers(whole), numbers(broken)
    assert [row["epoch"] for row in resumed] == list(range(EPOCHS))
    for one, other in zip(unbroken, resumed, strict=True):
        assert other == pytest.approx(one, abs=1e-5, rel=1e-5)


def killed_at_the_checkpoint_of(epoch: int, written: bool):
    """In place of `BestAndLast`'s hook: the process ends right before that checkpoint is written, or right after."""
    save = BestAndLast.on_train_epoch_end

    def hook(self, trainer, pl_module):
        if trainer.current_epoch != epoch or written:
            save(self, trainer, pl_module)
        if trainer.current_epoch == epoch:
            raise Killed

    return hook


@pytest.mark.slow
@pytest.mark.parametrize("written", [False, True])
def test_no_epoch_is_missing_when_the_kill_falls_beside_its_checkpoint(trained, tmp_path, monkeypatch, written):
    more = ("trainer.max_epochs=3", "evaluation.split=none", "trainer.enable_progress_bar=false")
    arguments = tiny(trained.cohort, tmp_path, *more)
    with monkeypatch.context() as patch:
        patch.setattr(BestAndLast, "on_train_epoch_end", killed_at_the_checkpoint_of(1, written))
        with pytest.raises(Killed):
            train_here(tmp_path, arguments)
    train_here(tmp_path, [*arguments, "trainer.resume=auto"])
    assert [row["epoch"] for row in history_of(tmp_path)] == [0, 1, 2]


def test_resuming_from_nowhere_says_so(trained, tmp_path):
    done = run_verb("train", *tiny(trained.cohort, tmp_path / "run", f"trainer.resume={tmp_path / 'nothing'}"))
    assert done.returncode == 1
    assert "no checkpoint at" in done.stderr
    assert "Traceback" not in done.stderr
