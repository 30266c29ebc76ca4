"""Means, intervals and ranks of a comparison, against numbers worked out another way."""

import math

import numpy as np
import pytest

from compseg.studies.scores import lead, ordered, ranking, read_outcome, scores, share_of

METRIC = "test/pixel_ap"


def score(outcomes, metric):
    (one,) = scores(outcomes, metric)
    return one


def test_mean_and_spread_are_over_seeds(made):
    one = score([made(0.5, seed=0), made(0.7, seed=1), made(0.9, seed=2), made(None, seed=3)], METRIC)
    assert one.values == (0.5, 0.7, 0.9)
    assert one.planned == 4
    assert one.mean == pytest.approx(0.7)
    assert one.sd == pytest.approx(0.2)
    assert math.isnan(one.low)


def test_with_one_seed_the_interval_is_that_of_the_samples(made):
    draws = np.linspace(0, 1, 1000)
    one = score([made(0.5, replicates=draws)], METRIC)
    assert (one.low, one.high) == pytest.approx((0.025, 0.975), abs=1e-3)
    assert math.isnan(one.sd)


def test_the_interval_contains_what_seeds_and_what_samples_change(made):
    """Variance of a two-level bootstrap mean: samples' (shared by the seeds) plus seeds' (n - 1) / n over n."""
    generator = np.random.default_rng(1)
    samples = generator.normal(0, 0.02, 1000)
    values = generator.normal(0.5, 0.05, 8)
    runs = [made(value, seed=i, replicates=value + samples) for i, value in enumerate(values)]
    one = score(runs, METRIC)
    expected = 0.02**2 + values.var() / 8
    assert one.replicates.var() == pytest.approx(expected, rel=0.1)
    assert one.low < one.mean < one.high
    only_samples = score([made(values.mean(), method="b", replicates=values.mean() + samples)], METRIC)
    assert one.high - one.low > only_samples.high - only_samples.low


def test_ranks_are_means_over_cohorts(made):
    table = {"x": (0.9, 0.5, 0.5, 0.99, 0.1), "y": (0.6, 0.7, 0.2, 0.99, 0.1)}
    outcomes = [
        made(value, cohort=cohort, method=method)
        for cohort, row in table.items()
        for method, value in zip(["a", "b", "c", "supervised", "all_ones"], row, strict=True)
    ]
    found = ranking(scores(outcomes, METRIC), METRIC, apart=("supervised", "all_ones"))
    assert [(rank.contender[1], dict(rank.ranks), rank.mean) for rank in found] == [
        ("a", {"x": 1, "y": 2}, 1.5),
        ("b", {"x": 2.5, "y": 1}, 1.75),
        ("c", {"x": 2.5, "y": 3}, 2.75),
    ]


def test_ranks_have_intervals_in_pairs(made):
    """Where one method is better in every replicate the rank is sure, however wide the intervals of both."""
    wide = np.random.default_rng(0).normal(0.5, 0.2, 1000)
    better, worse = made(0.51, method="a", replicates=wide + 0.01), made(0.5, method="b", replicates=wide)
    first, second = ranking(scores([worse, better], METRIC), METRIC)
    assert (first.contender[1], first.low, first.high) == ("a", 1, 1)
    assert (second.low, second.high) == (2, 2)
    one, other = scores([worse, better], METRIC)
    assert one.high > other.low + 0.5


def test_small_healthy_fractions_rank_high(made):
    key = "test/healthy_area_fraction"
    outcomes = [made(0.5, method="a", **{key: 0.3}), made(0.5, method="b", **{key: 0.1})]
    found = scores(outcomes, key)
    assert [one.contender[1] for one in ordered(found, key)] == ["b", "a"]
    assert [rank.contender[1] for rank in ranking(found, key)] == ["b", "a"]


def test_a_contender_without_the_metric_comes_last_and_has_no_rank(made):
    outcomes = [made(None, method="a"), made(0.1, method="b")]
    found = scores(outcomes, METRIC)
    assert [one.contender[1] for one in ordered(found, METRIC)] == ["b", "a"]
    assert [rank.contender[1] for rank in ranking(found, METRIC)] == ["b"]


def test_left_out_groups_are_averaged_by_seed(made):
    values = {("A", 0): 0.2, ("B", 0): 0.6, ("A", 1): 0.4, ("B", 1): 0.8, ("A", 2): 0.9}
    outcomes = [made(value, held_out=group, seed=seed) for (group, seed), value in values.items()]
    outcomes.append(made(None, held_out="B", seed=2))
    (mean,) = scores(outcomes, METRIC)
    assert mean.values == pytest.approx((0.4, 0.6))  # seed 2 lacks a group
    assert mean.planned == 3
    groups = {one.held_out: one for one in scores(outcomes, METRIC, by_group=True)}
    assert groups["A"].mean == pytest.approx(0.5)
    assert groups["B"].values == pytest.approx((0.6, 0.8))
    assert scores([made(0.5, method="z")], METRIC, by_group=True) == []


def test_the_share_is_of_the_upper_bound_of_the_same_model(made):
    outcomes = [
        made(0.4),
        made(0.8, method="supervised"),
        made(0.3, model="n"),
        made(0.4, model="n", method="supervised"),
        made(0.2, cohort="d"),
    ]
    found = scores(outcomes, METRIC)
    shares = {(one.cohort, *one.contender): share_of(one, found, "supervised") for one in found}
    assert shares["c", "m", "a"] == pytest.approx(0.5)
    assert shares["c", "n", "a"] == pytest.approx(0.75)
    assert math.isnan(shares["d", "m", "a"])


def test_finished_means_with_the_metrics_of_the_split(made):
    assert made(0.5).finished("test")
    trained = made(0.5, seed=1)
    metrics = trained.folder / "metrics.json"
    metrics.write_text('{"val/loss": 0.1}')
    again = read_outcome(trained.folder.parents[3], trained.planned)
    assert again.trained
    assert not again.finished("test")
    assert not again.finished("val")
    assert not made(0.5, seed=2, status="failed").finished("test")
    assert not made(None, seed=3).finished("test")


def test_a_lead_is_judged_in_pairs(made):
    """The variance of a difference of paired means is that of what the two do not share."""
    generator = np.random.default_rng(2)
    shared, own = generator.normal(0, 0.2, 1000), generator.normal(0, 0.01, 1000)
    one = score([made(0.6, method="a", replicates=0.6 + shared + own)], METRIC)
    other = score([made(0.5, method="b", replicates=0.5 + shared)], METRIC)
    difference, low, high = lead(one, other)
    assert difference == pytest.approx(0.1)
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.01, 0.1 + 1.96 * 0.01), abs=3e-3)
    assert lead(other, one) == pytest.approx((-difference, -high, -low))
