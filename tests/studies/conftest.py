"""Made-up studies: job folders as training would leave them, in every state and with any metrics."""

import json

import numpy as np
import pytest

from compseg.studies.plan import Planned
from compseg.studies.record import write_record
from compseg.studies.scores import read_outcome


@pytest.fixture
def add_job(tmp_path):
    """Adds the folder of a job to the sweep `tmp_path / "sweep"`, as training and its launcher would leave it."""

    def add(name, overrides, status="finished", metrics=None, why="", epochs=0):
        folder = tmp_path / "sweep" / name
        write_record(folder, overrides, status, why, None if status == "started" else 12.5)
        if metrics is not None:
            (folder / "metrics.json").write_text(json.dumps(metrics))
        if epochs:
            (folder / "history.csv").write_text("epoch,val/loss\n" + "".join(f"{i},0.5\n" for i in range(epochs)))
        return folder

    return add


@pytest.fixture
def sweep(tmp_path, add_job):
    """Two keys swept, one shared: two finished jobs, one failed, one that was killed after three epochs."""
    shared = "trainer.max_epochs=9"
    low = {"val/loss": 0.25, "test/dice_mean": 0.5, "test/dice_mean_ci_low": 0.4}
    high = {"val/loss": 0.75, "test/dice_mean": 0.8, "test/dice_mean_ci_low": 0.7}
    add_job("0", ["model=unet", "head.alpha=0.05", shared], metrics=high, epochs=9)
    add_job("1", ["model=unet", "head.alpha=0.1", shared], "failed", why="cohort: gone | away")
    add_job("2", ["model=segnet", "head.alpha=0.05", shared], "started", epochs=3)
    add_job("10", ["model=segnet", "head.alpha=0.1", shared], metrics=low, epochs=9)
    return tmp_path / "sweep"


@pytest.fixture
def made(tmp_path):
    """Makes the outcome of a job with a value of `test/pixel_ap` and its replicates; None: not started."""

    def make(value, cohort="c", method="a", seed=0, held_out="", model="m", replicates=None, status="finished", **more):
        job = Planned(cohort, model, method, seed, held_out, ("trainer.devices=1", f"method={method}", f"seed={seed}"))
        folder = tmp_path / "comparison" / job.name
        if value is not None:
            write_record(folder, job.overrides, status, more.pop("why", ""), 10.0)
            metrics = {"val/loss": 0.5, "val/pixel_ap": value / 2, "test/pixel_ap": value, **more}
            (folder / "metrics.json").write_text(json.dumps(metrics))
            if replicates is not None:
                np.savez(folder / "bootstrap.npz", **{"test/pixel_ap": np.resize(replicates, 1000)})
        return read_outcome(tmp_path / "comparison", job)

    return make
