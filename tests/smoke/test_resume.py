"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from running import command, environment, history_of, run_verb, succeed, tiny

EPOCHS = 6
# Dropout, turns and shuffles all draw random numbers; none may depend on where the run was broken.
OPTIONS = (f"trainer.max_epochs={EPOCHS}", "model.dropout=0.3", "evaluate=false")


def numbers(run: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history_of(run)]


def kill_after(rows: int, arguments: list[str], run: Path) -> None:
    """Start a training run and kill it, without warning, in the epoch after `rows` epochs are done."""
    process = subprocess.Popen(
        command("train", *arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
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


def test_resuming_from_nowhere_says_so(trained, tmp_path):
    done = run_verb("train", *tiny(trained.cohort, tmp_path / "run", f"trainer.resume={tmp_path / 'nothing'}"))
    assert done.returncode == 1
    assert "no checkpoint at" in done.stderr
    assert "Traceback" not in done.stderr
