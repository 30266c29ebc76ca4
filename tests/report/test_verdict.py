import pytest

from compseg.maps.threshold import Threshold, fixed
from compseg.measures import figures_of_splits, metrics
from compseg.report.verdict import dice_of_all_tissue, verdict_on
from made_maps import by_hand, mixture

FITTED = Threshold(0.5, "fitted to the truth of 7 validation samples", 0.4, 0.6)


def verdict(maps, threshold=FITTED):
    return verdict_on(metrics(figures_of_splits([], maps, threshold), threshold, 0.1), threshold, maps)


def test_a_good_result_is_called_good():
    good = verdict(mixture(40, separation=5))
    assert good.headline.startswith("The maps tell disease samples from healthy ones well (area AUC")
    assert "mean Dice of" in good.headline
    assert good.weak == []
    assert [f.name for f in good.figures] == [
        "area AUC",
        "mean Dice",
        "pixel average precision",
        "healthy tissue marked",
        "threshold",
    ]


def test_a_useless_result_is_called_useless():
    bad = verdict(mixture(40, separation=0, seed=3), Threshold(0.1, "fitted", 0.05, 0.2))
    assert "not shown to tell" in bad.headline
    assert any("marking all tissue" in sentence for sentence in bad.weak)
    assert any("hardly rank" in sentence for sentence in bad.weak)
    assert any("of healthy tissue is marked" in sentence for sentence in bad.weak)


def test_without_truth_it_says_that_outlines_are_unchecked():
    blind = verdict(mixture(40, separation=5, truth=False))
    assert "unknown" in blind.headline
    assert any("unchecked" in sentence for sentence in blind.weak)


def test_few_samples_and_single_classes():
    assert any("Only 2 disease samples" in sentence for sentence in verdict(mixture(4)).weak)
    alone = verdict(mixture(30)[1::2])
    assert "Only one class" in alone.headline
    assert any("Only 0 healthy samples" in sentence for sentence in alone.weak)


def test_thresholds_that_were_not_fitted_are_named():
    maps = mixture(40, separation=5)
    assert any("was not fitted" in sentence for sentence in verdict(maps, fixed(0.5)).weak)
    fallback = Threshold(0.5, "disease samples are no more active than healthy ones: ...", 0.4, 0.6)
    assert any("a fallback" in sentence for sentence in verdict(maps, fallback).weak)
    assert any(
        "does not carry over" in sentence for sentence in verdict(maps, Threshold(0.97, "fitted", 0.9, 0.98)).weak
    )


def test_dice_of_marking_everything():
    maps = [by_hand([0.9] * 4, truth=[1, 0, 0, 0]), by_hand([0.9] * 4, truth=[1, 1, 0, 0], name="b")]
    assert dice_of_all_tissue(maps) == pytest.approx((2 * 1 / 5 + 2 * 2 / 6) / 2)


def test_small_numbers_keep_their_digits():
    faint = mixture(40, separation=5, scale=0.004)
    shown = {f.name: f.value for f in verdict(faint, Threshold(0.002, "fitted", 0.001, 0.003)).figures}
    assert shown["threshold"] == "0.002"
