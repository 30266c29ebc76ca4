"""Made-up sweep folders in every state that a sweep can be in."""

import json

import pytest

from compseg.sweeps.jobs import write_record


@pytest.fixture
def add_job(tmp_path):
    """Adds the folder of a job to the sweep `tmp_path / "sweep"`, as training and its launcher would leave it."""

    def add(name, overrides, status="finished", figures=None, why="", epochs=0):
        folder = tmp_path / "sweep" / name
        write_record(folder, overrides, status, why, None if status == "started" else 12.5)
        if figures is not None:
            (folder / "metrics.json").write_text(json.dumps(figures))
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
    add_job("0", ["model=unet", "head.alpha=0.05", shared], figures=high, epochs=9)
    add_job("1", ["model=unet", "head.alpha=0.1", shared], "failed", why="cohort: gone | away")
    add_job("2", ["model=segnet", "head.alpha=0.05", shared], "started", epochs=3)
    add_job("10", ["model=segnet", "head.alpha=0.1", shared], figures=low, epochs=9)
    return tmp_path / "sweep"
