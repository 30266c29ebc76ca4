from dataclasses import replace

import numpy as np
import pytest

from compseg.evaluation.shortcuts import Cue, GroupGap, Origin, Shortcuts, group_gap
from compseg.evaluation.tables import flat_metrics, metrics_of_splits
from compseg.evaluation.thresholds import fixed
from compseg.inference.threshold import Threshold
from compseg.report.verdict import dice_of_all_tissue, verdict_on
from made_maps import by_hand, mixture

FITTED = Threshold(0.5, "fitted to the truth of 7 validation samples", 0.4, 0.6, "truth")


ELSEWHERE = Origin(named=True, new=40, total=40, inseparable=False, told=0.5)


def verdict(maps, threshold=FITTED, origin=None, cues=(), groups=None):
    shortcuts = Shortcuts(origin, list(cues), groups)
    return verdict_on(flat_metrics(metrics_of_splits([], maps, threshold), threshold, 0.1), threshold, maps, shortcuts)


def weak(**given):
    """What is weak beside maps that are good."""
    return verdict(mixture(40, separation=5), **given).weak


def test_a_good_result_is_called_good():
    good = verdict(mixture(40, separation=5))
    assert good.headline.startswith("The maps tell disease samples from healthy ones well (area AUC")
    assert "mean Dice of" in good.headline
    assert good.weak == []
    assert [metric.name for metric in good.metrics] == [
        "area AUC",
        "mean Dice",
        "pixel average precision",
        "healthy tissue marked",
        "threshold",
    ]


def test_a_useless_result_is_called_useless():
    bad = verdict(mixture(40, separation=0, seed=3), Threshold(0.1, "fitted", 0.05, 0.2, "labels"))
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
    fallback = Threshold(0.5, "disease samples are no more active than healthy ones: ...", 0.4, 0.6, "fallback")
    assert any("a fallback" in sentence for sentence in verdict(maps, fallback).weak)
    high = Threshold(0.97, "fitted", 0.9, 0.98, "truth")
    assert any("does not carry over" in sentence for sentence in verdict(maps, high).weak)


@pytest.mark.parametrize("how", ["fitted to anything", "the highest mean Dice", "fixed beforehand at 0.5", ""])
@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("truth", None),
        ("probabilities", None),
        ("labels", None),
        ("fallback", "a fallback"),
        ("fixed", "was not fitted"),
    ],
)
def test_the_words_of_a_threshold_decide_nothing(how, origin, said):
    found = verdict(mixture(40, separation=5), Threshold(0.5, how, 0.4, 0.6, origin)).weak
    assert [said in sentence for sentence in found] == ([True] if said else [])


def test_dice_of_marking_everything():
    maps = [by_hand([0.9] * 4, truth=[1, 0, 0, 0]), by_hand([0.9] * 4, truth=[1, 1, 0, 0], name="b")]
    assert dice_of_all_tissue(maps) == pytest.approx((2 * 1 / 5 + 2 * 2 / 6) / 2)


def test_small_numbers_keep_their_digits():
    faint = mixture(40, separation=5, scale=0.004)
    shown = {f.name: f.value for f in verdict(faint, Threshold(0.002, "fitted", 0.001, 0.003, "labels")).metrics}
    assert shown["threshold"] == "0.002"


def lit_whole(maps):
    """Disease samples are told apart, and lit up whole."""
    return [
        replace(item, activation=(item.tissue * (0.9 if item.info.label else 0.1)).astype(np.float32)) for item in maps
    ]


def test_maps_that_light_up_whole_samples_do_not_show_the_region():
    whole = verdict(lit_whole(mixture(40)))
    assert "area AUC 1.000" in whole.headline
    assert any("something that is not the region" in sentence for sentence in whole.weak)
    assert any("the truth of other disease samples as well" in sentence for sentence in whole.weak)
    blind = verdict(lit_whole(mixture(40, truth=False)))
    assert len(blind.weak) == 1


def test_maps_that_tell_nothing_are_not_said_to_tell_samples_apart():
    useless = verdict(mixture(40, separation=0, seed=3)).weak
    assert not any("not the region" in sentence for sentence in useless)
    assert any("the truth of other disease samples as well" in sentence for sentence in useless)


def test_where_the_test_samples_come_from():
    assert weak(origin=ELSEWHERE) == []
    assert "all of groups that training never saw" in verdict(mixture(40), origin=ELSEWHERE).metrics[0].remark
    (seen,) = weak(origin=replace(ELSEWHERE, new=0))
    assert "data.held_out=GROUP" in seen
    assert "compseg.compare cv=group" in seen
    (unnamed,) = weak(origin=replace(ELSEWHERE, new=0, named=False))
    assert "names no groups" in unnamed


def test_classes_and_groups_that_go_together():
    (told,) = weak(origin=replace(ELSEWHERE, told=0.9))
    assert "AUC 0.90: the array may be" in told
    (inseparable,) = weak(origin=replace(ELSEWHERE, told=1.0, inseparable=True))
    assert "no metric here can tell disease from array" in inseparable


@pytest.mark.parametrize(
    ("gap", "p", "said"), [(0.2, 1e-4, True), (0.05, 1e-4, False), (0.2, 0.02, False), (0.2, 0.002, True)]
)
def test_groups_are_named_where_they_differ_surely_and_enough(gap, p, said):
    found = weak(groups=GroupGap("B", "A", (0.1 + gap, 0.1), 0.4, p))
    assert [
        sentence.startswith("Healthy samples of group B are more active than those of A") for sentence in found
    ] == [True] * said


def test_a_group_that_lights_up_is_named():
    maps = mixture(40, separation=5)
    lit = [replace(item, pooled=item.pooled + 0.3 * (item.info.group == "B")) for item in maps]
    assert weak(groups=group_gap(maps)) == []
    (sentence,) = weak(groups=group_gap(lit))
    assert "of group B are more active than those of A" in sentence


@pytest.mark.parametrize(
    ("cue", "said"),
    [
        (Cue("tissue area", 0.97, 1e-9, 0.8, 1e-4), "follows it (rank correlation 0.80)"),
        (Cue("tissue area", 0.03, 1e-9, -0.8, 1e-4), "AUC 0.97, and"),
        (Cue("tissue area", 0.97, 1e-9, -0.8, 1e-4), "does not surely follow it"),
        (Cue("tissue area", 0.97, 1e-9, 0.3, 0.2), "does not surely follow it"),
        (Cue("tissue area", 0.7, 1e-9, 0.8, 1e-4), None),
        (Cue("tissue area", 0.9, 0.05, 0.8, 1e-4), None),
    ],
)
def test_cues_are_named_where_they_tell_the_labels(cue, said):
    found = weak(cues=[cue])
    assert len(found) == (said is not None)
    assert all(sentence.startswith("Tissue area alone") and said in sentence for sentence in found)
