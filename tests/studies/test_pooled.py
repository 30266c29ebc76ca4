"""Cross-validation as one number: the samples of all folds together, with intervals over patients."""

import csv
import dataclasses

import numpy as np
import pytest

from compseg.evaluation.metrics import auc
from compseg.studies.comparison import folds_in
from compseg.studies.pooled import metrics_of, rounds_of, write_pooled

HEAD = "sample,label,class,group,patient,area_fraction,output,dice"


@pytest.fixture
def folds(made):
    """Outcomes of two rounds of two folds, each with the table of its samples."""

    def outcome(repeat, fold, rows):
        one = made(0.5, held_out=f"repeat {repeat}, fold {fold} of 2")
        (one.folder / "samples.csv").write_text("\n".join([HEAD, *rows]) + "\n")
        return dataclasses.replace(one)

    chance = np.random.default_rng(0)
    rows = [
        f"s{i},{i % 2},,,p{i // 2},{0.2 * (i % 2) + 0.3 * chance.random():.4f},0.5,{0.25 + i / 200 if i % 2 else ''}"
        for i in range(40)
    ]
    return [outcome(repeat, fold, rows[fold - 1 :: 2][::repeat]) for repeat in (1, 2) for fold in (1, 2)], rows


def test_a_metric_is_of_the_samples_of_all_folds(folds, tmp_path):
    outcomes, rows = folds
    table = write_pooled(tmp_path, outcomes[:2], "test")
    found = {row["metric"]: row for row in csv.DictReader(table.read_text().splitlines())}
    cells = [row.split(",") for row in rows]
    labels, areas = np.array([int(cell[1]) for cell in cells]), np.array([float(cell[5]) for cell in cells])
    dice = [float(cell[7]) for cell in cells if cell[7]]
    assert float(found["area_auc"]["value"]) == pytest.approx(auc(areas, labels), abs=1e-6)
    assert float(found["dice_mean"]["value"]) == pytest.approx(np.mean(dice), abs=1e-6)
    assert float(found["healthy_area_fraction"]["value"]) == pytest.approx(areas[labels == 0].mean(), abs=1e-6)
    for row in found.values():
        assert float(row["ci_low"]) < float(row["value"]) < float(row["ci_high"])
        assert (row["samples"], row["rounds"], row["method"]) == ("40", "1", "a")


def test_rounds_are_averaged_and_those_with_a_fold_missing_left_out(folds, tmp_path):
    outcomes, _ = folds
    each = [metrics_of(rows)["dice_mean"][0] for rows in rounds_of(outcomes)]
    assert len(each) == 2
    table = write_pooled(tmp_path, outcomes, "test")
    found = {row["metric"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert float(found["dice_mean"]["value"]) == pytest.approx(np.mean(each), abs=1e-6)
    assert found["dice_mean"]["rounds"] == "2"
    assert len(list(rounds_of(outcomes[:3]))) == 2  # what was not planned is not missing
    (outcomes[3].folder / "samples.csv").unlink()
    assert len(list(rounds_of(outcomes))) == 1
    assert write_pooled(tmp_path, outcomes, "val") is None


def test_folds_of_repeats_are_named_and_others_each_time():
    found = folds_in(2, 2)
    assert found == {
        "repeat 1, fold 1 of 2": "{fold:1,of:2,seed:0}",
        "repeat 1, fold 2 of 2": "{fold:2,of:2,seed:0}",
        "repeat 2, fold 1 of 2": "{fold:1,of:2,seed:1}",
        "repeat 2, fold 2 of 2": "{fold:2,of:2,seed:1}",
    }
