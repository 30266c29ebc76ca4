"""Real pictures and their manifest, where they lie beside the checkout."""

import csv
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compseg.cohort import find_problems, prepare
from compseg.sources import Images

ULTRASOUND = Path(__file__).parents[3] / "shared/data/busi"


@pytest.mark.realdata
@pytest.mark.skipif(not ULTRASOUND.is_dir(), reason="no ultrasound pictures beside the checkout")
def test_ultrasound_comes_through_exactly(tmp_path):
    with (ULTRASOUND / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
    few = [*islice((r for r in rows if r["label"] == "0"), 12), *islice((r for r in rows if r["label"] == "1"), 12)]
    for row in few:
        row["image"] = str(ULTRASOUND / row["image"])
        row["truth"] = row["truth"] and str(ULTRASOUND / row["truth"])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, few[0])
        writer.writeheader()
        writer.writerows(few)
    cohort = prepare(Images(tmp_path / "labels.csv"), tmp_path / "c.zarr", progress=False)
    assert [problem for problem in find_problems(tmp_path / "c.zarr") if "split val" not in problem.what] == []
    for row in few:
        np.testing.assert_array_equal(cohort.image(row["sample"])[..., 0], np.asarray(Image.open(row["image"])))
        assert cohort.truth(row["sample"]).any() == (row["label"] == "1")
        assert cohort.tissue(row["sample"]).all()
