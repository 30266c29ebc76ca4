"""Runs verbs as a user does, on cohorts small enough for a test."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

# A phantom of a few small spots and a network of a few weights: what is tested is the path, not the accuracy.
TINY = (
    "data.source.size=20",
    "data.source.channels=8",
    "model.width=8",
    "data.batch_size=6",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "callbacks.best_and_last.seconds=0",  # a test kills runs after few of them
)

# Seconds after which a process counts as hung. No measure of speed: a crowded machine takes minutes over little work.
HANGS = 3600


def tiny(cohort: Path, run: Path, *more: str) -> list[str]:
    """Arguments of a tiny training run; later ones win."""
    chosen = {item.split("=")[0]: item for item in (*TINY, f"data.path={cohort}", f"hydra.run.dir={run}", *more)}
    return list(chosen.values())


def command(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"compseg.{verb}", *arguments]


def environment(**more: str) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    tests = str(Path(__file__).parent)  # where a run finds what a test has it call
    return {**plain, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([tests, *_path(plain)]), **more}


def _path(env: dict[str, str]) -> list[str]:
    return [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []


def run_verb(verb: str, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(verb, *arguments),
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
        cwd=cwd,
        env=environment(**env),
    )


def succeed(verb: str, *arguments: str, cwd: Path | None = None, **env: str) -> str:
    """Run a verb that must succeed; its standard output."""
    done = run_verb(verb, *arguments, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


def history_of(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


class Killed(BaseException):
    """The end of a process, as far as files go; raised in this one."""


def train_here(run: Path, arguments: list[str]) -> None:
    """Train in this process, so that a test may change what happens on the way; evaluate nothing."""
    from compseg.config import compose
    from compseg.training import train

    train(compose("train", [item for item in arguments if not item.startswith("hydra.")]), run)


def run_here(verb: str, *arguments: str) -> int:
    """Run a verb in this process, without the seconds that a process takes to import torch; its exit code."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    before, sys.argv = sys.argv, [f"compseg.{verb}", *arguments]
    try:
        importlib.import_module(f"compseg.{verb}").main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
    return 0
