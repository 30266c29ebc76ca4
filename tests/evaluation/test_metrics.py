import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.metrics import roc_curve as roc_curve_of_sklearn

from compseg.errors import CompsegError
from compseg.evaluation.curves import curves_of, labels_of
from compseg.evaluation.intervals import percentile_interval, resample
from compseg.evaluation.metrics import (
    area_fraction,
    area_fractions,
    auc,
    auc_of_replicates,
    average_precision,
    average_precision_of_ranked,
    average_precision_of_replicates,
    best_dice_of_replicates,
    dice,
    pixel_average_precision,
    prevalence,
    roc_curve,
)
from compseg.evaluation.names import MAP_METRICS, METRICS, lower_is_better
from compseg.evaluation.thresholds import fixed
from made_maps import by_hand, mixture

HALF = fixed(0.5)
WEIGHTS = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 3, 1], [0, 3, 0, 1, 1, 2]], dtype=float)


def repeated(values, weights):
    return np.repeat(np.asarray(values), weights.astype(int), axis=0)


def scored_with_ties(seed, size=60):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size)
    return (rng.normal(size=size) + labels).round(1), labels


def test_area_fraction_counts_tissue_alone():
    item = by_hand([0.9, 0.2, 0.9, 0.9], tissue=[1, 1, 1, 0])
    assert area_fraction(item, HALF) == pytest.approx(2 / 3)
    assert area_fraction(by_hand([0.9], tissue=[0]), HALF) == 0


def test_dice_by_hand():
    # Marked 3, true 2, both 2.
    assert dice(by_hand([0.9, 0.9, 0.9, 0.1], truth=[1, 1, 0, 0]), HALF) == pytest.approx(2 * 2 / (3 + 2))
    assert dice(by_hand([0.1, 0.1], truth=[1, 0]), HALF) == 0
    assert dice(by_hand([0.9, 0.1], truth=[1, 0]), HALF) == 1
    # Truth outside the tissue is nobody's to find.
    assert dice(by_hand([0.9, 0.9], truth=[1, 1], tissue=[1, 0]), HALF) == 1


def test_dice_is_undefined_without_a_region():
    assert dice(by_hand([0.9], truth=None), HALF) is None
    assert dice(by_hand([0.9], truth=[0]), HALF) is None
    assert dice(by_hand([0.9], truth=[1], tissue=[0]), HALF) is None
    assert dice(by_hand([0.9], truth=[0], label=0), HALF) is None


def test_dice_is_scikit_learns_f1():
    for item in mixture(6, seed=3)[1::2]:
        marked, true = HALF.apply(item.activation, item.tissue)[item.tissue], item.truth[item.tissue]
        assert dice(item, HALF) == pytest.approx(f1_score(true, marked))


@pytest.mark.parametrize("seed", range(3))
def test_roc_is_scikit_learns(seed):
    maps = mixture(20, seed=seed, separation=0.7)
    scores, labels = area_fractions(maps, HALF), labels_of(maps)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    found = roc_curve(scores, labels)
    fpr, tpr, _ = roc_curve_of_sklearn(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(found, (fpr, tpr), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_ties_count_half_and_are_one_step_of_the_curve(seed):
    scores, labels = scored_with_ties(seed)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    fpr, tpr = roc_curve(scores, labels)
    assert len(fpr) == len(np.unique(scores)) + 1
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(scores, labels), abs=1e-14)


def test_auc_by_hand_with_a_tie():
    maps = [
        by_hand(a, label=label, name=f"s{i}")
        for i, (label, a) in enumerate([(1, [0.9, 0.9]), (1, [0.9, 0.1]), (0, [0.9, 0.1]), (0, [0.1, 0.1])])
    ]
    assert auc(area_fractions(maps, HALF), labels_of(maps)) == (1 + 1 + 0.5 + 1) / 4


def test_auc_needs_both_classes_and_finite_scores():
    assert np.isnan(auc(np.ones(3), np.ones(3, int)))
    assert np.isnan(auc(np.empty(0), np.empty(0, int)))
    assert np.isnan(auc(np.array([0.1, np.nan]), np.array([0, 1])))


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_pixel_average_precision_is_scikit_learns(scale):
    maps = mixture(8, seed=1, separation=1, scale=scale)
    scores = np.concatenate([m.activation[m.tissue] for m in maps])
    target = np.concatenate([m.truth[m.tissue] for m in maps])
    assert pixel_average_precision(maps) == pytest.approx(average_precision_score(target, scores), abs=1e-5)


def test_pixel_average_precision_by_hand():
    maps = [by_hand([0.9, 0.7], truth=[1, 0]), by_hand([0.8, 0.1], truth=[0, 0], label=0, name="h")]
    assert pixel_average_precision(maps) == 1.0
    worse = [by_hand([0.8, 0.7], truth=[1, 0]), by_hand([0.9, 0.1], truth=[0, 0], label=0, name="h")]
    assert pixel_average_precision(worse) == 0.5
    assert prevalence(maps) == 0.25


def test_pixels_without_truth_are_not_judged():
    assert pixel_average_precision(mixture(4, truth=False)) is None
    assert prevalence(mixture(4, truth=False)) is None
    partly = [by_hand([0.9, 0.7], truth=[1, 0]), by_hand([0.95, 0.99], truth=None, name="unseen")]
    assert pixel_average_precision(partly) == 1.0


pixels = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans(), st.booleans()), min_size=1, max_size=20)


@given(pixels, st.floats(0, 1))
def test_all_scores_lie_in_the_unit_interval(triples, at):
    a, truth, tissue = zip(*triples, strict=True)
    item = by_hand(a, truth=truth, tissue=tissue)
    for score in (area_fraction(item, fixed(at)), dice(item, fixed(at)), pixel_average_precision([item])):
        assert score is None or 0 <= score <= 1


def test_auc_is_that_of_repeated_samples():
    scores, labels = np.array([0.1, 0.5, 0.5, 0.2, 0.4, 0.7]), np.array([0, 1, 0, 1, 0, 1])
    wanted = [roc_auc_score(repeated(labels, w), repeated(scores, w)) for w in WEIGHTS]
    np.testing.assert_allclose(auc_of_replicates(scores, labels, WEIGHTS), wanted)


def test_average_precision_is_that_of_repeated_samples():
    maps = mixture(6, seed=2, separation=1, size=10)  # few enough pixels for every activation to be a level
    pixels = [m.activation[m.tissue] for m in maps]
    truths = [m.truth[m.tissue] for m in maps]
    found = average_precision_of_replicates(curves_of(maps), WEIGHTS)
    for weights, value in zip(WEIGHTS, found, strict=True):
        picked = np.repeat(np.arange(6), weights.astype(int))
        scores, target = (np.concatenate([part[i] for i in picked]) for part in (pixels, truths))
        assert value == pytest.approx(average_precision_score(target, scores))


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_average_precision_from_levels_is_close_for_many_pixels(scale):
    maps = mixture(10, seed=5, separation=1.5, size=48, scale=scale)
    scores = np.concatenate([m.activation[m.tissue] for m in maps])
    target = np.concatenate([m.truth[m.tissue] for m in maps])
    (found,) = average_precision_of_replicates(curves_of(maps), np.ones((1, 10)))
    assert found == pytest.approx(average_precision_score(target, scores), abs=2e-3)


def test_average_precision_counts_pixels_of_no_activation():
    maps = mixture(2, size=8)
    dead = [type(m)(m.info, np.zeros_like(m.activation), m.tissue, m.truth, 0.0, 0.0) for m in maps]
    (found,) = average_precision_of_replicates(curves_of(dead), np.ones((1, 2)))
    assert found == pytest.approx(sum(m.truth.sum() for m in maps) / sum(m.tissue.sum() for m in maps))


def test_best_dice_is_found_again_in_each_replicate():
    judged = mixture(12, seed=1)[1::2]
    curves = curves_of(judged)
    wanted = [repeated(curves.dice, w).mean(axis=0).max() for w in WEIGHTS]
    np.testing.assert_allclose(best_dice_of_replicates(curves, WEIGHTS), wanted)


def test_auc_intervals_cover_the_true_auc():
    # Scores are normal, one standard deviation apart: AUC = Phi(1 / sqrt 2).
    rng, true, covered = np.random.default_rng(7), 0.76025, 0
    labels = np.repeat([0, 1], 20)
    infos = [m.info for m in mixture(40)]
    infos = [type(i)(i.name, int(label)) for i, label in zip(infos, labels, strict=True)]
    for trial in range(150):
        scores = rng.normal(size=40) + labels
        low, high = percentile_interval(auc_of_replicates(scores, labels, resample(infos, 300, seed=trial)))
        covered += low <= true <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_auc_of_a_replicate_without_a_class_is_nan():
    assert np.isnan(auc_of_replicates(np.ones(2), np.array([0, 1]), np.array([[2.0, 0.0]])))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_of_ranked_scores_is_that_of_scores(seed):
    scores, labels = scored_with_ties(seed)
    scores, order = scores.astype(np.float32), np.argsort(-scores)
    wanted = average_precision_score(labels, scores)
    assert average_precision_of_ranked(scores[order], labels[order] == 1) == pytest.approx(wanted, abs=1e-12)
    assert average_precision(1 / (1 + np.exp(-scores)), labels == 1) == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(average_precision(scores, labels == 2))


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("pixel_ap", False),
        ("test/pixel_ap", False),
        ("test/pixel_ap_ci_low", False),
        ("test/healthy_area_fraction", True),
        ("test/dice_std", True),
        ("val/loss", True),
        ("train/x_healthy", True),
        ("val/x_auc", False),
        ("collapse/outside", True),
    ],
)
def test_every_metric_has_its_direction(metric, lower):
    assert lower_is_better(metric) is lower


@pytest.mark.parametrize("name", ["test/accuracy", "my_loss", "threshold", ""])
def test_a_metric_without_a_direction_is_refused_with_those_that_have_one(name):
    with pytest.raises(CompsegError, match=rf"{name}: expected a metric .*pixel_ap, .*loss.*") as error:
        lower_is_better(name)
    assert "\n" not in str(error.value)


def test_metrics_to_select_by_and_those_that_need_truth():
    assert {name for name, metric in MAP_METRICS.items() if metric.selects} == {"area_auc", "pixel_ap", "dice_best"}
    assert {name for name, metric in METRICS.items() if not metric.needs_truth} & set(MAP_METRICS) == {
        "area_auc",
        "healthy_area_fraction",
    }
    assert all(metric.description for metric in METRICS.values())


def test_a_direction_does_not_cost_torch():
    code = "import sys; from compseg.evaluation.names import lower_is_better; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
