import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compseg.errors import CompsegError
from compseg.evaluation.curves import curves_of
from compseg.evaluation.metrics import dice
from compseg.evaluation.thresholds import (
    PAPER,
    disease_share,
    expected_dice,
    fit_from_labels,
    fit_from_probabilities,
    fit_from_truth,
    fit_threshold,
    fixed,
)
from compseg.inference.threshold import Threshold
from made_maps import by_hand, mixture


def mean_dice(maps, threshold):
    return np.mean([dice(item, threshold) for item in maps if item.info.label])


def gain(maps, threshold):
    """What a threshold is fitted for: Dice in disease samples, less what it marks in healthy ones."""
    marked = [threshold.apply(item.activation, item.tissue).sum() / item.tissue.sum() for item in maps]
    return mean_dice(maps, threshold) - np.mean(
        [s for s, item in zip(marked, maps, strict=True) if not item.info.label]
    )


def test_survives_json():
    threshold = Threshold(0.31, "fitted", 0.2, 0.4, "labels")
    assert Threshold.from_dict(json.loads(json.dumps(threshold.to_dict()))) == threshold


@pytest.mark.parametrize(
    ("how", "low", "origin"),
    [
        ("fitted to the truth of 7 validation samples (highest mean Dice)", 0.2, "truth"),
        ("fitted to the truth of 1 validation samples (highest mean Dice)", 0.4, "truth"),
        ("fitted to the probabilities in 6 validation samples (highest expected Dice)", 0.2, "probabilities"),
        ("fitted to the labels of 6 validation samples (highest expected Dice; ...)", 0.2, "labels"),
        ("disease samples are no more active than healthy ones: the level that 5 % of healthy ...", 0.2, "fallback"),
        ("no disease validation sample to fit to: the level that 5 % of healthy ...", 0.2, "fallback"),
        ("no disease validation sample to fit to: even odds", 0.4, "fixed"),
        ("no healthy validation sample to fit to: the paper's 0.35", 0.4, "fixed"),
        ("fixed beforehand at 0.4", 0.4, "fixed"),
    ],
)
def test_descriptions_without_an_origin_are_still_read(how, low, origin):
    assert Threshold.from_dict({"value": 0.4, "how": how, "low": low, "high": 0.4}).origin == origin


def test_every_way_says_its_origin():
    maps, blind = mixture(12), mixture(12, truth=False)
    swapped = [by_hand(np.linspace(0, 1 - label / 2, 101), label=label, name=f"s{label}") for label in (0, 1)]
    assert fit_threshold(maps, "auto", probabilities=True).origin == "truth"
    assert fit_threshold(blind, "auto", probabilities=True).origin == "probabilities"
    assert fit_threshold(blind, "auto").origin == "labels"
    assert fit_threshold(maps, 0.2).origin == "fixed"
    assert fit_from_labels(swapped).origin == "fallback"
    assert fit_from_labels(maps[0::2]).origin == "fallback"
    assert fit_from_labels(maps[1::2]).origin == "fixed"
    assert fit_from_probabilities(maps[0::2]).origin == "fixed"
    with pytest.raises(CompsegError, match="threshold=eye: expected auto, truth"):
        fit_threshold(maps, "eye")


def test_applies_strictly_and_on_tissue():
    threshold = fixed(0.5)
    mask = threshold.apply(np.array([[0.5, 0.6, 0.9]], np.float32), np.array([[True, True, False]]))
    assert mask.tolist() == [[False, True, False]]


def test_fixed_is_the_papers_and_bounded():
    assert fixed().value == PAPER == 0.35
    with pytest.raises(CompsegError, match=r"threshold 1.5: expected a value in \[0, 1\]"):
        fixed(1.5)


def test_truth_cuts_separated_maps_half_way():
    fitted = fit_from_truth([by_hand([0.1, 0.1, 0.9, 0.9], truth=[0, 0, 1, 1])])
    assert fitted.value == pytest.approx(0.5, abs=0.001)
    assert fitted.low == fitted.value == fitted.high


def test_truth_weighs_samples_not_pixels():
    # One large sample wants a cut above .6, three small ones below .4; mean Dice sides with the three.
    large = by_hand([[0.5] * 10 + [0.8] * 10] * 20, truth=[[0] * 10 + [1] * 10] * 20, name="large")
    small = [by_hand([0.1, 0.5], truth=[0, 1], name=f"small{i}") for i in range(3)]
    assert 0.1 < fit_from_truth([large, *small]).value < 0.5


def test_truth_beats_a_grid_of_thresholds():
    maps = mixture(12, seed=4, separation=2)
    best = max(gain(maps, fixed(t)) for t in np.linspace(0, 1, 101))
    fitted = fit_from_truth(maps)
    assert gain(maps, fitted) >= best - 1e-3
    assert fitted.low <= fitted.value <= fitted.high
    assert fitted.low < fitted.high


def test_marking_healthy_tissue_costs():
    # Dice alone is highest below .2, where half of the healthy sample is marked for a twentieth of Dice.
    disease = by_hand([0.1, 0.15, 0.3, 0.9], truth=[0, 1, 1, 1], name="d")
    healthy = by_hand([0.0, 0.0, 0.2, 0.2], label=0, name="h")
    assert fit_from_truth([disease]).value < 0.15
    assert 0.2 <= fit_from_truth([disease, healthy]).value < 0.3


@pytest.mark.parametrize("fit", [fit_from_truth, fit_from_labels])
def test_maps_that_say_nothing_mark_nothing(fit):
    rng = np.random.default_rng(0)
    truth = np.zeros(400, bool)
    truth[:40] = True
    same = rng.random(400).astype(np.float32)
    maps = [by_hand(same, label=i % 2, truth=truth & bool(i % 2), name=f"s{i}") for i in range(8)]
    fitted = fit(maps)
    marked = np.mean([fitted.apply(item.activation, item.tissue).mean() for item in maps])
    assert marked < 0.2
    flat = [by_hand([0.5] * 6, label=i % 2, truth=[i % 2, 0, 0, 0, 0, 0], name=f"s{i}") for i in range(4)]
    assert fit(flat).value == 1.0
    assert fit(flat).origin == "fallback"
    assert "marks nothing" in fit(flat).how


def test_truth_needs_truth():
    with pytest.raises(CompsegError, match="expected a disease sample with a truth mask, got none among 4"):
        fit_from_truth(mixture(4, truth=False))


def test_disease_share_by_hand():
    # Half the disease tissue is disease, all of it above every level that a tenth of healthy tissue exceeds.
    F, U = np.array([0.9, 0.1, 0.0]), np.array([0.95, 0.55, 0.3])
    assert disease_share(U, F) == pytest.approx(0.5)
    assert disease_share(F, F) == 0
    np.testing.assert_allclose(expected_dice(U, F, 0.5)[1:], [2 * 0.5 / 1.05, 2 * 0.3 / 0.8])


def test_expected_dice_is_the_dice_of_the_mixture():
    # Where disease samples hold disease and healthy-like tissue alone, the formula equals the Dice that truth gives.
    rng = np.random.default_rng(0)
    healthy, diseased = rng.beta(2, 8, 20000), rng.beta(8, 3, 6000)
    spot = np.concatenate([rng.beta(2, 8, 14000), diseased])
    truth = np.arange(20000) >= 14000
    maps = [by_hand(healthy, label=0, name="h"), by_hand(spot, truth=truth, name="d")]
    curves = curves_of(maps)
    F, U = curves.fractions
    np.testing.assert_allclose(expected_dice(U, F, 0.3), curves.dice[1], atol=0.03)
    assert disease_share(U, F) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("separation", "shares"), [(3.0, (0.15, 0.5)), (4.0, (0.05, 0.3)), (2.5, (0.3, 0.7))])
def test_labels_come_close_to_truth(seed, separation, shares):
    val = mixture(20, seed=seed, separation=separation, shares=shares)
    test = mixture(20, seed=100 + seed, separation=separation, shares=shares)
    from_labels, from_truth = fit_from_labels(val), fit_from_truth(val)
    assert mean_dice(test, from_labels) >= 0.9 * mean_dice(test, from_truth)
    assert from_labels.low <= from_labels.value <= from_labels.high
    assert "fitted to the labels of 20" in from_labels.how


def test_labels_never_look_at_truth():
    with_truth, without = mixture(10, seed=2), mixture(10, seed=2, truth=False)
    assert fit_from_labels(with_truth) == fit_from_labels(without)


def test_labels_do_not_mind_a_faint_map():
    plain, faint = fit_from_labels(mixture(12)), fit_from_labels(mixture(12, scale=1e-3))
    assert faint.value == pytest.approx(1e-3 * plain.value, rel=0.15)


def test_no_signal_marks_nothing():
    swapped = [by_hand(np.linspace(0, 1 - label / 2, 101), label=label, name=f"s{label}") for label in (0, 1)]
    fitted = fit_from_labels(swapped)
    assert "no more active" in fitted.how
    assert fitted.value == 1.0


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_maps_mark_nothing(value):
    maps = [by_hand([value] * 6, label=i % 2, name=f"s{i}") for i in range(4)]
    fitted = fit_from_labels(maps)
    assert "no more active" in fitted.how
    assert not fitted.apply(maps[0].activation, maps[0].tissue).any()


def test_missing_classes_say_so():
    maps = mixture(8)
    only_healthy, only_disease = maps[0::2], maps[1::2]
    assert "no disease validation sample" in fit_from_labels(only_healthy).how
    fitted = fit_from_labels(only_disease)
    assert (fitted.value, fitted.low, fitted.high) == (PAPER, PAPER, PAPER)
    assert "no healthy validation sample" in fitted.how
    assert fit_from_labels([]).value == PAPER


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6)), max_size=5))
def test_labels_always_give_a_threshold_in_bounds(samples):
    fitted = fit_from_labels([by_hand(a, label=label, name=f"s{i}") for i, (label, a) in enumerate(samples)])
    assert 0 <= fitted.low <= fitted.high <= 1
    assert 0 <= fitted.value <= 1
    assert fitted.how


def test_probabilities_give_the_dice_optimal_threshold_of_a_small_map():
    # By hand: of the cuts below .2, .5, .6 and .9 the expected Dice is 4.4/6.2, 4/5.2, 3/4.2 and 1.8/3.2.
    fitted = fit_from_probabilities([by_hand([0.2, 0.5, 0.6, 0.9], label=1)])
    assert 0.2 <= fitted.value < 0.5
    assert fitted.how == "fitted to the probabilities in 1 validation samples (highest expected Dice)"


def test_probabilities_that_hold_reach_the_best_dice():
    rng = np.random.default_rng(3)
    maps = []
    for number in range(12):
        chance = 1 / (1 + np.exp(-rng.normal(-1, 2, (24, 24)))).astype(np.float32)
        maps.append(by_hand(chance, truth=rng.random((24, 24)) < chance, name=f"s{number}"))
    best = fit_from_truth(maps)
    blind = fit_from_probabilities([by_hand(item.activation, name=item.info.name) for item in maps])
    assert mean_dice(maps, blind) > mean_dice(maps, best) - 0.005
    assert blind.low <= blind.value <= blind.high


def test_probabilities_move_with_fainter_maps():
    maps = mixture(12, seed=4, separation=4)
    faint = mixture(12, seed=4, separation=4, scale=0.4)
    fitted, fainter = fit_from_probabilities(maps), fit_from_probabilities(faint)
    assert fainter.value < 0.7 * fitted.value
    assert mean_dice(faint, fainter) > mean_dice(faint, fitted) + 0.1


def test_probabilities_without_a_disease_sample_fall_back_to_even_odds():
    assert fit_from_probabilities([by_hand([0.1, 0.9], label=0)]).value == 0.5
