"""Made-up comparisons: job folders as training would leave them, with figures of one's choice."""

import json

import numpy as np
import pytest

from compseg.comparison.plan import Planned
from compseg.comparison.standings import read_outcome
from compseg.sweeps.jobs import write_record


@pytest.fixture
def made(tmp_path):
    """Makes the outcome of a job with a value of `test/pixel_ap` and its replicates; None: not started."""

    def make(value, cohort="c", method="a", seed=0, held_out="", model="m", replicates=None, status="finished", **more):
        job = Planned(cohort, model, method, seed, held_out, ("trainer.devices=1", f"method={method}", f"seed={seed}"))
        folder = tmp_path / "comparison" / job.name
        if value is not None:
            write_record(folder, job.overrides, status, more.pop("why", ""), 10.0)
            figures = {"val/loss": 0.5, "val/pixel_ap": value / 2, "test/pixel_ap": value, **more}
            (folder / "metrics.json").write_text(json.dumps(figures))
            if replicates is not None:
                np.savez(folder / "bootstrap.npz", **{"test/pixel_ap": np.resize(replicates, 1000)})
        return read_outcome(tmp_path / "comparison", job)

    return make
