import csv
import json
import math

import numpy as np
import pytest

from compseg.evaluation.metrics import dice
from compseg.evaluation.names import MAP_METRICS
from compseg.evaluation.shortcuts import swapped_truth
from compseg.evaluation.tables import flat_metrics, metrics_of, metrics_of_splits, samples_csv, write_replicates
from compseg.evaluation.thresholds import fixed
from compseg.inference.threshold import Threshold
from made_maps import by_hand, mixture

THRESHOLD = Threshold(0.5, "fitted", 0.4, 0.6, "truth")


def judged(maps, threshold, val_loss, val=()):
    return flat_metrics(metrics_of_splits(val, maps, threshold), threshold, val_loss)


def with_intervals(*names):
    return {f"{name}{end}" for name in names for end in ("", "_ci_low", "_ci_high")}


ALWAYS = {"val/loss"} | with_intervals("threshold", "test/area_auc", "test/healthy_area_fraction")
SWAPPED = with_intervals("test/pixel_ap_own", "test/pixel_ap_swapped")
WITH_TRUTH = with_intervals("test/pixel_ap", "test/dice_mean", "test/dice_std", "test/dice_best") | SWAPPED


def test_keys_are_the_contracts_with_truth():
    assert set(judged(mixture(12), THRESHOLD, 0.1)) == ALWAYS | WITH_TRUTH


def test_keys_are_the_contracts_without_truth():
    assert set(judged(mixture(12, truth=False), THRESHOLD, 0.1)) == ALWAYS


def test_one_class_leaves_out_what_needs_two():
    maps = mixture(12)
    healthy, disease = maps[0::2], maps[1::2]
    assert set(judged(healthy, THRESHOLD, 0.1)) == ALWAYS - with_intervals("test/area_auc")
    assert set(judged(disease, THRESHOLD, 0.1)) == {"val/loss"} | with_intervals("threshold") | WITH_TRUTH


def test_a_single_disease_sample_has_no_spread():
    found = judged(mixture(2), THRESHOLD, 0.1)
    assert "test/dice_std" not in found
    assert found["test/dice_mean_ci_low"] == pytest.approx(found["test/dice_mean"])


def test_values_are_plain_finite_numbers_and_survive_json():
    found = judged(mixture(12), THRESHOLD, 0.1)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "val/loss" not in judged(mixture(12), THRESHOLD, math.nan)


def test_golden_values_by_hand():
    maps = [
        by_hand([0.9, 0.9, 0.1, 0.1], truth=[1, 1, 0, 0], name="d1"),  # Dice 1
        by_hand([0.9, 0.1, 0.1, 0.1], truth=[1, 1, 0, 0], name="d2"),  # Dice 2 / 3
        by_hand([0.6, 0.1, 0.1, 0.1], truth=[0] * 4, label=0, name="h1"),
        by_hand([0.1, 0.1, 0.1, 0.1], truth=[0] * 4, label=0, name="h2"),
    ]
    found = judged(maps, THRESHOLD, 0.25)
    assert found["val/loss"] == 0.25
    assert (found["threshold"], found["threshold_ci_low"], found["threshold_ci_high"]) == (0.5, 0.4, 0.6)
    assert found["test/area_auc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert found["test/healthy_area_fraction"] == pytest.approx(0.125)
    assert found["test/dice_mean"] == pytest.approx(5 / 6)
    assert found["test/dice_std"] == pytest.approx(np.std([1, 2 / 3], ddof=1))
    assert found["test/dice_best"] == pytest.approx(5 / 6)
    # Recall 3/4 at precision 1, then the last hit among all 16 pixels.
    assert found["test/pixel_ap"] == pytest.approx(3 / 4 + 1 / 4 * 4 / 16)


def test_intervals_hold_the_metric_and_are_in_bounds():
    found = judged(mixture(30, seed=2, separation=1.5), THRESHOLD, 0.1)
    for name in ("area_auc", "pixel_ap", "dice_mean", "dice_best", "healthy_area_fraction"):
        value, low, high = (found[f"test/{name}{end}"] for end in ("", "_ci_low", "_ci_high"))
        assert 0 <= low <= value <= high <= 1
        assert low < high


def test_no_threshold_beats_the_best():
    maps = mixture(16, seed=9, separation=1.5)
    best = judged(maps, THRESHOLD, 0.1)["test/dice_best"]
    for value in np.linspace(0, 1, 41):
        assert np.mean([dice(m, fixed(value)) for m in maps if m.info.label]) <= best + 1e-3


def test_patients_widen_the_interval():
    maps = mixture(24, seed=1, separation=1.0)
    shared = [
        type(m)(type(m.info)(m.info.name, m.info.label, patient=f"p{i % 2}-{i // 8}"), *list(vars(m).values())[1:])
        for i, m in enumerate(maps)
    ]
    alone = judged(maps, THRESHOLD, 0.1)
    together = judged(shared, THRESHOLD, 0.1)
    assert alone["test/dice_mean"] == together["test/dice_mean"]
    assert alone["test/dice_mean_ci_low"] != together["test/dice_mean_ci_low"]


def test_samples_csv(tmp_path):
    maps = [
        by_hand([0.9, 0.1], truth=[1, 1], name="spot_1", class_name="T", group="A", patient="p, 1"),
        by_hand([0.1, 0.1], truth=[0, 0], label=0, name="spot_2", class_name="N"),
    ]
    path = tmp_path / "new" / "samples.csv"
    samples_csv(maps, THRESHOLD, path, {item.info.name: item.info.name for item in maps})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sample", "label", "class", "group", "patient", "area_fraction", "output", "dice"]
    assert rows[0] == {
        "sample": "spot_1",
        "label": "1",
        "class": "T",
        "group": "A",
        "patient": "p, 1",
        "area_fraction": "0.5",
        "output": "0.5",
        "dice": "0.666667",
    }
    assert rows[1]["dice"] == ""
    assert [p.name for p in path.parent.iterdir()] == ["samples.csv"]


def test_validation_metrics_are_those_to_select_by():
    val, test = mixture(12, seed=3), mixture(12, seed=4)
    both = judged(test, THRESHOLD, 0.1, val)
    chosen = with_intervals("val/area_auc", "val/pixel_ap", "val/dice_best")
    assert set(both) == ALWAYS | WITH_TRUTH | chosen
    as_test = judged(val, THRESHOLD, 0.1)
    assert {key: both[key] for key in chosen} == {key: as_test[key.replace("val/", "test/")] for key in chosen}
    assert set(judged([], THRESHOLD, 0.1, val)) == {"val/loss"} | with_intervals("threshold") | chosen


def test_without_truth_or_a_class_validation_metrics_are_absent():
    assert set(judged([], THRESHOLD, 0.1, mixture(12, truth=False))) >= {"val/area_auc"}
    assert "val/pixel_ap" not in judged([], THRESHOLD, 0.1, mixture(12, truth=False))
    assert "val/area_auc" not in judged([], THRESHOLD, 0.1, mixture(12)[1::2])


def test_replicates_give_the_intervals(tmp_path):
    found = metrics_of_splits(mixture(12), mixture(12, seed=1), THRESHOLD)
    write_replicates(found, tmp_path / "bootstrap.npz")
    flat = flat_metrics(found, THRESHOLD, 0.1)
    with np.load(tmp_path / "bootstrap.npz") as stored:
        assert set(stored) == set(found)
        for name in found:
            assert stored[name].shape == (1000,)
            assert np.nanquantile(stored[name], 0.025) == pytest.approx(flat[f"{name}_ci_low"])


def test_the_names_of_metrics_are_all_there():
    need_truth = {name for name, metric in MAP_METRICS.items() if metric.needs_truth}
    assert sorted(metrics_of(mixture(12), THRESHOLD)) == sorted(MAP_METRICS)
    assert set(MAP_METRICS) - set(metrics_of(mixture(12, truth=False), THRESHOLD)) == need_truth


def test_own_and_swapped_truth_are_means_over_disease_samples():
    maps = mixture(24)
    found, swap = judged(maps, THRESHOLD, 0.1), swapped_truth(maps[1::2])
    assert found["test/pixel_ap_own"] == pytest.approx(swap.own.mean())
    assert found["test/pixel_ap_swapped"] == pytest.approx(swap.swapped.mean())
    assert found["test/pixel_ap_swapped_ci_high"] == pytest.approx(np.quantile(swap.swapped, 0.975))
    assert found["test/pixel_ap_own_ci_low"] > found["test/pixel_ap_swapped_ci_high"]
    assert not SWAPPED & set(judged(mixture(8), THRESHOLD, 0.1))
