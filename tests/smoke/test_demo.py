"""What `make demo` promises: the default configuration learns the phantom from sample labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compseg.cohort import Cohort
from running import succeed


@pytest.mark.slow
def test_the_default_learns_the_phantom(tmp_path):
    cohort, run = tmp_path / "phantom.zarr", tmp_path / "run"
    printed = succeed("train", f"data.path={cohort}", f"hydra.run.dir={run}", "trainer.accelerator=cpu")
    assert str(run / "report.html") in printed
    metrics = json.loads((run / "metrics.json").read_text())
    opened = Cohort.open(cohort)
    truth, tissue = (
        np.concatenate([getattr(opened, part)(info.name).ravel() for info in opened.split("test")])
        for part in ("truth", "tissue")
    )
    assert metrics["test/area_auc"] >= 0.95
    assert metrics["test/pixel_ap"] >= 3 * truth[tissue].mean()
    assert metrics["test/healthy_area_fraction"] < 0.1
