import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve

from compseg.evaluation.metrics import (
    area_fraction,
    area_fractions,
    area_roc,
    dice,
    labels_of,
    pixel_average_precision,
    prevalence,
)
from compseg.evaluation.thresholds import fixed
from made_maps import by_hand, mixture

HALF = fixed(0.5)


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
    roc, scores, labels = area_roc(maps, HALF), area_fractions(maps, HALF), labels_of(maps)
    assert roc.auc == pytest.approx(roc_auc_score(labels, scores))
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.false_positive_rate, fpr, atol=1e-6)
    np.testing.assert_allclose(roc.true_positive_rate, tpr, atol=1e-6)


def test_roc_by_hand_with_a_tie():
    maps = [
        by_hand(a, label=label, name=f"s{i}")
        for i, (label, a) in enumerate([(1, [0.9, 0.9]), (1, [0.9, 0.1]), (0, [0.9, 0.1]), (0, [0.1, 0.1])])
    ]
    assert area_roc(maps, HALF).auc == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_roc_needs_both_classes():
    assert area_roc(mixture(6)[1::2], HALF) is None
    assert area_roc([], HALF) is None


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
