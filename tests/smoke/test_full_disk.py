"""A disk that fills up while a checkpoint is written: one line, and the last good checkpoint is whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from running import HANGS, command, environment, history_of, succeed, tiny

SPACE = 800_000  # bytes: enough for a tiny run's files, not for much beside them


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = sys.platform == "linux" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk of its own is not permitted here: it takes Linux and its superuser")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    """Leave less than a checkpoint needs."""
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(free - 60_000))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(trained, small_disk):
    run = small_disk / "run"
    arguments = tiny(trained.cohort, run, "trainer.max_epochs=400", "evaluation.split=none")
    with subprocess.Popen(
        command("train", *arguments), env=environment(), stderr=subprocess.PIPE, text=True
    ) as training:
        while not ((run / "history.csv").exists() and len(history_of(run)) >= 3):
            assert training.poll() is None, training.communicate()[1]
        fill(small_disk)
        complaint = training.communicate(timeout=HANGS)[1]
    assert training.returncode == 1
    assert complaint.count("compseg train: ") == 1
    assert "No space left" in complaint
    assert "Traceback" not in complaint

    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] >= 1
    assert [path.name for path in run.rglob("*.partial")] == []
    (small_disk / "ballast").unlink()
    more = f"trainer.max_epochs={last['epoch'] + 3}"
    succeed("train", *tiny(trained.cohort, run, more, "evaluation.split=none", "trainer.resume=auto"))
    assert [row["epoch"] for row in history_of(run)] == list(range(last["epoch"] + 3))
