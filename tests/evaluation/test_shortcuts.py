"""Signs of shortcuts against scipy's and scikit-learn's own numbers, and on maps whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kruskal, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from compseg.evaluation.shortcuts import (
    CUES,
    cue_values,
    cues,
    group_gap,
    origin_of,
    swapped_truth,
    thinned,
)
from compseg.samples import SampleInfo
from made_maps import by_hand, mixture


def healthy(group, values, patients=None):
    names = patients or [f"{group}{i}" for i in range(len(values))]
    return [
        by_hand([x], label=0, name=f"{group}_{i}", group=group, patient=name)
        for i, (x, name) in enumerate(zip(values, names, strict=True))
    ]


def spots(group, split, disease, healthy=0):
    labels = [1] * disease + [0] * healthy
    return [SampleInfo(f"{group}{split}{i}", label, split=split, group=group) for i, label in enumerate(labels)]


def diseased(count, seed=0, **made):
    return [item for item in mixture(2 * count, seed, **made) if item.info.label]


def test_groups_of_healthy_samples_are_compared_by_kruskal_and_wallis():
    rng = np.random.default_rng(0)
    x = {"A": rng.uniform(0, 0.2, 8), "B": rng.uniform(0.1, 0.4, 6), "C": rng.uniform(0, 0.3, 7)}
    x = {group: values.astype(np.float32).astype(float) for group, values in x.items()}
    disease = [by_hand([0.9], group=group, name=f"d{group}") for group in "AB"]
    found = group_gap([item for group, values in x.items() for item in healthy(group, values)] + disease)
    assert found.p == pytest.approx(kruskal(*x.values()).pvalue)
    assert (found.high, found.low) == ("B", "A")
    assert found.medians == pytest.approx((np.median(x["B"]), np.median(x["A"])))
    assert found.separation == pytest.approx(0.9 - np.median(np.concatenate(list(x.values()))))


def test_samples_of_a_patient_count_once():
    single = [*healthy("A", [0.1, 0.2, 0.3]), *healthy("B", [0.5, 0.6, 0.7])]
    spots_of = lambda group, values: healthy(  # noqa: E731
        group, [x + step for x in values for step in (-0.05, 0.05)], [f"{group}{i}" for i in (0, 0, 1, 1, 2, 2)]
    )
    doubled = [*spots_of("A", [0.1, 0.2, 0.3]), *spots_of("B", [0.5, 0.6, 0.7])]
    assert group_gap(doubled).p == pytest.approx(group_gap(single).p)


def test_groups_that_cannot_be_compared():
    assert group_gap(healthy("A", [0.1, 0.2, 0.3])) is None
    assert group_gap([*healthy("A", [0.1, 0.2, 0.3]), *healthy("B", [0.9, 0.9])]) is None
    assert group_gap(diseased(6)) is None
    assert group_gap([*healthy("A", [0.5] * 3), *healthy("B", [0.5] * 3)]).p == 1


def test_new_groups_are_counted():
    origin = origin_of([*spots("A", "train", 5, 5), *spots("A", "test", 2, 2), *spots("B", "test", 1, 2)])
    assert (origin.named, origin.new, origin.total) == (True, 3, 7)
    assert not origin.inseparable
    unnamed = origin_of([*spots("", "train", 5, 5), *spots("", "test", 2, 2)])
    assert (unnamed.named, unnamed.new, unnamed.inseparable) == (False, 0, False)


def test_class_and_group_that_nothing_parts():
    """Two arrays of one class each cannot be told from two classes; many slides that training never saw can."""
    two = [*spots("A", "train", 9), *spots("B", "train", 0, 9)]
    assert origin_of([*two, *spots("A", "test", 3), *spots("B", "test", 0, 3)]).inseparable
    assert origin_of([*two, *spots("C", "test", 3), *spots("D", "test", 0, 3)]).inseparable
    assert not origin_of([*two, *spots("C", "test", 3, 3)]).inseparable
    many = [item for i in range(5) for item in [*spots(f"T{i}", "train", 2), *spots(f"N{i}", "train", 0, 2)]]
    assert not origin_of([*many, *spots("T9", "test", 2), *spots("N9", "test", 0, 2)]).inseparable
    assert origin_of([*many, *spots("T0", "test", 2), *spots("N0", "test", 0, 2)]).inseparable
    assert not origin_of(spots("A", "train", 9)).inseparable


def test_how_well_the_group_tells_the_labels():
    train = [*spots("A", "train", 9, 3), *spots("B", "train", 2, 12)]
    scores = [{"A": 9 / 12, "B": 2 / 14}[info.group] for info in train]
    assert origin_of(train).told == pytest.approx(roc_auc_score([info.label for info in train], scores))
    small = [item for i in range(8) for item in spots(f"p{i}", "train", 2 * (i % 2), 2 * (1 - i % 2))]
    assert origin_of(small).told == 0.5


def test_cue_values_by_hand():
    image = np.array([[[1.0, 3.0], [5.0, 7.0]], [[0.0, 0.5], [9.0, 9.0]]], np.float16)
    tissue = np.array([[True, True], [False, True]])
    assert cue_values(image, tissue) == dict(zip(CUES, (3.0, 34 / 6, 0.25), strict=True))
    assert np.isnan(cue_values(image, np.ones_like(tissue))["mean signal off the tissue"])


def test_cues_are_told_by_ranks():
    rng = np.random.default_rng(1)
    train = [SampleInfo(f"t{i}", i % 2, split="train") for i in range(40)]
    test = mixture(20)
    names = [info.name for info in train] + [item.info.name for item in test]
    values = {name: dict(zip(CUES, rng.normal(size=3), strict=True)) for name in names}
    for info in train:
        values[info.name]["tissue area"] += 2 * info.label
    for item in test:
        values[item.info.name]["mean signal on the tissue"] = -item.pooled
        values[item.info.name]["mean signal off the tissue"] = np.nan
    area, on, off = cues(train, test, values)
    labels = [info.label for info in train]
    assert area.told == pytest.approx(roc_auc_score(labels, [values[info.name]["tissue area"] for info in train]))
    assert area.p < 1e-3 < on.p
    normal = [item for item in test if not item.info.label]
    ranks = [rankdata([values[item.info.name]["tissue area"] for item in normal]), rankdata([i.pooled for i in normal])]
    assert area.followed == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert on.followed == pytest.approx(-1)
    assert np.isnan(off.followed)
    assert off.p_followed == 1


def test_a_cue_that_some_samples_lack_tells_nothing():
    train = [SampleInfo(f"t{i}", i % 2, split="train") for i in range(6)]
    values = {info.name: dict.fromkeys(CUES, np.nan if info.name == "t0" else float(info.label)) for info in train}
    assert {(cue.told, cue.p) for cue in cues(train, [], values)} == {(0.5, 1.0)}
    assert cues([], [], {})[0].told == 0.5


def test_swapped_precisions_are_scikit_learns():
    maps = [replace(item, activation=item.activation.round(1)) for item in diseased(5, separation=2)]  # with ties
    found = swapped_truth(maps)
    table = np.array(
        [
            [
                average_precision_score(other.truth[both], item.activation[both])
                for other in maps
                for both in [item.tissue & other.tissue]
            ]
            for item in maps
        ]
    )
    assert found.samples == [item.info.name for item in maps]
    np.testing.assert_allclose(found.own, table.diagonal())
    derangements = [order for order in permutations(range(5)) if all(i != place for i, place in enumerate(order))]
    means = [table[range(5), list(order)].mean() for order in derangements]
    assert len(derangements) == 44
    np.testing.assert_allclose(np.unique(found.swapped.round(9)), np.unique(np.round(means, 9)))
    assert found.swapped.mean() == pytest.approx(np.mean(means), rel=0.01)


def test_pairs_are_judged_where_both_have_tissue():
    maps = diseased(6)
    narrow = replace(maps[0], tissue=maps[0].tissue & (np.arange(24) < 14))
    found, cut = swapped_truth(maps), swapped_truth([narrow, *maps[1:]])
    np.testing.assert_array_equal(found.own[1:], cut.own[1:])
    both = narrow.tissue
    assert cut.own[0] == pytest.approx(average_precision_score(maps[0].truth[both], maps[0].activation[both]))


def test_maps_of_the_region_and_maps_of_the_place_are_told_apart():
    maps = diseased(20)
    rows, columns = np.mgrid[:24, :24]
    centre = (1 / (1 + np.hypot(rows - 12, columns - 12))).astype(np.float32)
    follows_region, follows_place = (
        swapped_truth(given) for given in (maps, [replace(item, activation=centre * item.tissue) for item in maps])
    )
    assert follows_region.own.mean() > np.quantile(follows_region.swapped, 0.975) + 0.2
    assert follows_place.own.mean() <= np.quantile(follows_place.swapped, 0.975)
    assert follows_place.own.mean() > 0.5  # which by itself looks like knowledge of the region


def test_other_sizes_are_skipped_and_few_samples_not_judged():
    maps = diseased(6)
    assert swapped_truth([*maps, *diseased(2, size=30)]).samples == [item.info.name for item in maps]
    assert swapped_truth(maps[:4]) is None
    assert swapped_truth([]) is None
    assert len(swapped_truth(diseased(90, size=8)).samples) == 30


def test_thinned_items_come_in_even_steps():
    assert thinned(range(7), 3) == [0, 3, 6]
    assert thinned(range(3), 3) == [0, 1, 2]
    assert thinned([], 3) == []
