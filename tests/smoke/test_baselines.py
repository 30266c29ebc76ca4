"""A fitted floor and a map that is read off a classifier go the same way as any segmenter."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from compseg import load_segmenter
from compseg.cohort import Cohort
from running import succeed, tiny


@pytest.mark.slow
@pytest.mark.parametrize(("method", "maps"), [("single_band", 1), ("patchcore", 1), ("padim", 1), ("gradcam_pp", 2)])
def test_a_baseline_goes_the_whole_way(trained, tmp_path, method, maps):
    if maps == 2:
        pytest.importorskip("monai")
    run = tmp_path / "run"
    given = tiny(trained.cohort, run, f"method={method}", "model.norm=group", "trainer.max_epochs=1")
    # A baseline without a network refuses what would set one up.
    printed = succeed("train", *(item for item in given if maps == 2 or not item.startswith("model.")))
    assert ("model: fitted, " in printed) == (maps == 1)
    description = json.loads((run / "segmenter" / "segmenter.json").read_text())
    kinds = {
        "single_band": "compseg.models.SingleBand",
        "patchcore": "compseg.models.PatchCore",
        "padim": "compseg.models.PaDiM",
        "gradcam_pp": "compseg.inference.cam.GradCAM",
    }
    assert description["model"]["_target_"] == kinds[method]
    with (run / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    segmenter, cohort = load_segmenter(run), Cohort.open(trained.cohort)
    for name in (row["sample"] for row in rows):
        judged = np.load(run / "maps" / f"{name}.npy")
        np.testing.assert_array_equal(segmenter(cohort.image(name), cohort.tissue(name)), judged)
        assert 0 <= judged.min() <= judged.max() <= 1
    assert len({row["output"] for row in rows}) > 1
    blank = segmenter.logits(np.ones((9, 7, segmenter.channels.count)), np.ones((9, 7), bool))
    assert blank.shape == (1, maps, 9, 7)
    assert torch.isfinite(blank).all()
