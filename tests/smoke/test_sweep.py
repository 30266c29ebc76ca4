"""Real sweeps as a user starts them: crashed and fixed, on two devices, and killed."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from pathlib import Path

import pytest

from running import HANGS, command, environment, history_of, run_verb, succeed

TINY = ("data=cohort", "model.width=8", "data.batch_size=6", "trainer.max_epochs=2", "trainer.accelerator=cpu")


def sweep_arguments(sweep: Path, *more: str) -> list[str]:
    return ["-m", *TINY, *more, f"hydra.sweep.dir={sweep}"]


def jobs_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def folders(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


@pytest.mark.slow
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


def begin(arguments: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("train", *arguments),
        env=environment(),
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + HANGS
    while not path.exists():
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_grid_on_two_devices_killed_in_the_middle_does_every_job_once(trained, tmp_path):
    sweep = tmp_path / "sweep"
    arguments = sweep_arguments(
        sweep, f"data.path={trained.cohort}", "model=unet,segnet", "head.alpha=0.05,0.1", "trainer.devices=2"
    )
    process = begin(arguments, tmp_path)
    wait_for(sweep / "1" / "checkpoints" / "last.ckpt", process)
    process.terminate()
    assert process.wait(HANGS) == 128 + signal.SIGTERM
    first = (sweep / "0" / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    succeed("sweep_report", str(sweep))
    assert [row["status"] for row in jobs_of(sweep)] == ["finished", "unfinished"]

    # What Lightning may have left in the process that starts a sweep must not reach the jobs.
    printed = succeed("train", *arguments, cwd=tmp_path, MASTER_PORT="1", WORLD_SIZE="4", NODE_RANK="3")
    assert printed.count("report: ") == 3
    assert folders(sweep) == ["0", "1", "2", "3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]
    assert (sweep / "0" / "checkpoints" / "best.ckpt").stat().st_mtime_ns == first
    rows = jobs_of(sweep)
    for row in rows:
        assert (row["status"], row["epochs"]) == ("finished", "2")
        assert [line["epoch"] for line in history_of(sweep / row["job"])] == [0, 1]
        assert (sweep / row["job"] / "train_ddp_process_1.log").is_file()
    cells = [(row["model"], row["head.alpha"]) for row in rows]
    assert cells == [("unet", "0.05"), ("unet", "0.1"), ("segnet", "0.05"), ("segnet", "0.1")]
    for name in ("sweep.csv", "sweep.md", "sweep.png", "sweep.html"):
        assert (sweep / name).is_file()


@pytest.mark.slow
def test_a_search_side_by_side_that_dies_has_as_many_trials_in_the_end(trained, tmp_path):
    import optuna

    sweep = tmp_path / "sweep"
    search = ("hydra/sweeper=search", "hydra.sweeper.n_trials=3", "optimizer.lr=tag(log,interval(1e-4,1e-1))")
    more = ("hydra/launcher=local", "hydra.launcher.jobs=2", "trainer.devices=1", "evaluation.split=test")
    arguments = sweep_arguments(sweep, f"data.path={trained.cohort}", *search, *more)
    process = begin(arguments, tmp_path)
    wait_for(sweep / "1" / "checkpoints", process)
    process.kill()  # its jobs outlive it, and are waited for
    process.wait()
    succeed("train", *arguments, cwd=tmp_path)
    assert folders(sweep) == ["0", "1", "2"]
    study = optuna.load_study(study_name="compseg", storage=f"sqlite:///{sweep}/study.db")
    rows = jobs_of(sweep)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert [trial.value for trial in study.trials] == [float(row["val/loss"]) for row in rows]
    assert len({row["optimizer.lr"] for row in rows}) == 3
    assert "epoch 1" in (sweep / "2" / "output.txt").read_text()
    succeed("train", *arguments, cwd=tmp_path)
    assert folders(sweep) == ["0", "1", "2"]
