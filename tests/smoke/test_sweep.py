"""Real sweeps as a user starts them: crashed and mended, on two devices, and killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from running import command, environment, history_of, run_verb, succeed

TINY = ("data=cohort", "model.width=8", "data.batch_size=6", "trainer.max_epochs=2", "trainer.accelerator=cpu")


def sweep_arguments(sweep: Path, *more: str) -> list[str]:
    return ["-m", *TINY, *more, f"hydra.sweep.dir={sweep}"]


def jobs_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def folders(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


def test_a_crashed_job_holds_nothing_up_and_is_tried_again(trained, tmp_path):
    sweep, absent = tmp_path / "my sweep", tmp_path / "absent.zarr"
    arguments = sweep_arguments(sweep, "trainer.devices=1", f"data.path={absent},{trained.cohort}")

    done = run_verb("train", *arguments)
    assert done.returncode == 1
    assert f"1 of 2 jobs not finished: 0 (data.path={absent}): {absent}: no such cohort" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [(row["job"], row["status"]) for row in jobs_of(sweep)] == [("0", "failed"), ("1", "finished")]
    assert (sweep / "sweep.png").stat().st_size > 5000

    absent.symlink_to(trained.cohort)
    finished = sweep / "1" / "checkpoints" / "best.ckpt"
    before = finished.stat().st_mtime_ns
    printed = succeed("train", *arguments)
    assert f"{sweep / '1'}: finished already" in printed
    assert finished.stat().st_mtime_ns == before
    rows = jobs_of(sweep)
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert rows[0]["val/loss"] == rows[1]["val/loss"]  # the same samples under two names
    assert folders(sweep) == ["0", "1"]

    for name in ("sweep.csv", "sweep.md", "sweep.png"):
        (sweep / name).unlink()
    printed = succeed("sweep_report", f"dir={sweep}", "rank_by=test/dice_mean")
    assert printed.strip() == str(sweep / "sweep.md")
    assert "Ranked by test/dice_mean, higher is better." in (sweep / "sweep.md").read_text()
    assert jobs_of(sweep) == rows


@pytest.mark.slow
def test_two_devices_do_every_job_once(trained, tmp_path):
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(sweep, f"data.path={trained.cohort}", "head.alpha=0.05,0.1", "trainer.devices=2")
    # What Lightning may have left in the process that starts a sweep must not reach the jobs.
    printed = succeed("train", *arguments, cwd=tmp_path, MASTER_PORT="1", WORLD_SIZE="4", NODE_RANK="3")
    assert printed.count("report: ") == 2
    assert folders(sweep) == ["0", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]
    for row in jobs_of(sweep):
        assert (row["status"], row["epochs"]) == ("finished", "2")
        assert len(history_of(sweep / row["job"])) == 2
        assert (sweep / row["job"] / "train_ddp_process_1.log").is_file()
    assert [row["head.alpha"] for row in jobs_of(sweep)] == ["0.05", "0.1"]


@pytest.mark.slow
def test_a_killed_sweep_is_reported_and_taken_up_again(trained, tmp_path):
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(sweep, f"data.path={trained.cohort}", "trainer.devices=1", "seed=1,2")
    arguments = [item.replace("max_epochs=2", "max_epochs=40") for item in arguments]
    process = subprocess.Popen(
        command("train", *arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (sweep / "0" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    succeed("sweep_report", f"dir={sweep}")
    assert jobs_of(sweep)[0]["status"] in ("running", "finished")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM

    succeed("sweep_report", f"dir={sweep}")
    killed = jobs_of(sweep)
    assert killed[-1]["status"] == "unfinished"
    assert int(killed[-1]["epochs"]) < 40
    succeed("train", *arguments)
    assert [(row["status"], row["epochs"]) for row in jobs_of(sweep)] == [("finished", "40")] * 2
