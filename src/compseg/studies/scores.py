"""Scores of a comparison: metrics of all jobs, averaged, with intervals over seeds and samples, and ranked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from compseg.errors import reading
from compseg.evaluation.intervals import percentile_interval
from compseg.evaluation.names import lower_is_better
from compseg.studies.plan import Planned
from compseg.studies.record import Record, read_record

Floats = NDArray[np.float64]
Contender = tuple[str, str]  # model, method
REPLICATES = 1000  # as many as `bootstrap.npz` of a run holds


@dataclass(frozen=True)
class Outcome:
    """What became of a planned job."""

    planned: Planned
    record: Record
    folder: Path

    def finished(self, split: str) -> bool:
        """Whether it has ended well and has the metrics of a split."""
        return self.trained and any(name.startswith(f"{split}/") and name != "val/loss" for name in self.record.metrics)

    @property
    def trained(self) -> bool:
        """Whether it has ended well, on whichever split it was judged."""
        return self.record.status == "finished"

    @cached_property
    def replicates(self) -> Mapping[str, Floats]:
        """`(R,)` bootstrap replicates of each metric; empty while there are none."""
        path = self.folder / "bootstrap.npz"
        if not path.is_file():
            return {}
        with reading(path, "evaluate the run again"), np.load(path) as stored:  # a Zip, which has checksums
            return dict(stored)


def read_outcome(folder: Path, planned: Planned) -> Outcome:
    """What became of one planned job."""
    run = folder / planned.name
    return Outcome(planned, read_record(run, planned.name), run)


@dataclass(frozen=True)
class Score:
    """How well one contender does on one cohort, or on one left-out group of it."""

    contender: Contender
    cohort: str
    held_out: str  # the group left out; empty for a cohort's own splits, and for the mean over all groups
    values: tuple[float, ...]  # the metric of each finished job; of a mean over groups, by seed
    planned: int  # how many values there will be
    mean: float  # NaN without values
    sd: float  # with n - 1; NaN for fewer than two values
    low: float  # the 95 % bootstrap interval of the mean, over seeds and samples; NaN without replicates
    high: float
    replicates: Floats  # (R,) bootstrap replicates of the mean; NaN where there are none


def scores(outcomes: Sequence[Outcome], metric: str, *, by_group: bool = False) -> list[Score]:
    """The score of each contender on each cohort; `by_group`, on each left-out group, of which there may be none."""
    cells: dict[tuple[str, str, Contender], list[Outcome]] = {}
    for outcome in outcomes:
        planned = outcome.planned
        if planned.held_out or not by_group:
            key = planned.cohort, planned.held_out if by_group else "", planned.contender
            cells.setdefault(key, []).append(outcome)
    return [_score(members, metric, *key) for key, members in cells.items()]


def _score(outcomes: Sequence[Outcome], metric: str, cohort: str, held_out: str, contender: Contender) -> Score:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.planned.held_out, []).append(outcome)
    values = _values_by_seed(groups, metric)
    replicates = np.mean([_replicates(members, metric) for members in groups.values()], axis=0)
    low, high = percentile_interval(replicates)
    return Score(
        contender=contender,
        cohort=cohort,
        held_out=held_out,
        values=tuple(values),
        planned=len({outcome.planned.seed for outcome in outcomes}),
        mean=float(np.mean(values)) if values else np.nan,
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
        low=low,
        high=high,
        replicates=replicates,
    )


def _values_by_seed(groups: Mapping[str, Sequence[Outcome]], metric: str) -> list[float]:
    """The metric of each seed for which all groups have it, averaged over the groups."""
    found = [
        {
            outcome.planned.seed: outcome.record.metrics[metric]
            for outcome in members
            if metric in outcome.record.metrics
        }
        for members in groups.values()
    ]
    # A mean over some of the groups is not comparable with one over all: left-out groups differ in difficulty.
    seeds = [seed for seed in found[0] if all(seed in values for values in found)]
    return [float(np.mean([values[seed] for values in found])) for seed in seeds]


def _replicates(outcomes: Sequence[Outcome], metric: str) -> Floats:
    """`(R,)` means over seeds sampled with replacement, each judged on the same resampled samples."""
    runs = [one.replicates[metric] for one in outcomes if metric in one.record.metrics and metric in one.replicates]
    if not runs:
        return np.full(REPLICATES, np.nan)
    generator = np.random.default_rng(0)  # the same for every contender, so that contenders are compared in pairs
    sampled = generator.integers(len(runs), size=(REPLICATES, len(runs)))
    means: Floats = np.array(runs)[sampled, np.arange(REPLICATES)[:, None]].mean(axis=1)
    return means


def ordered(found: Sequence[Score], metric: str) -> list[Score]:
    """The best first, those without the metric last."""
    sign = 1 if lower_is_better(metric) else -1
    return sorted(found, key=lambda one: sign * one.mean if np.isfinite(one.mean) else np.inf)


@dataclass(frozen=True)
class Rank:
    """A contender in the overall ranking."""

    contender: Contender
    ranks: Mapping[str, float]  # by cohort, 1 the best; ties share their mean rank
    mean: float
    low: float  # the 95 % bootstrap interval of the mean rank
    high: float


def ranking(found: Sequence[Score], metric: str, apart: Collection[str] = ()) -> list[Rank]:
    """The overall ranking by mean rank over cohorts, the best first; methods in `apart` get no rank."""
    judged = [one for one in found if one.contender[1] not in apart and np.isfinite(one.mean)]
    ranks: dict[Contender, dict[str, float]] = {}
    replicates: dict[Contender, list[Floats]] = {}
    for cohort in dict.fromkeys(one.cohort for one in judged):
        members = [one for one in judged if one.cohort == cohort]
        of_means = _ranks(np.array([one.mean for one in members]), metric)
        of_replicates = _ranks(np.array([one.replicates for one in members]), metric)
        for one, rank, resampled in zip(members, of_means, of_replicates, strict=True):
            ranks.setdefault(one.contender, {})[cohort] = float(rank)
            replicates.setdefault(one.contender, []).append(resampled)
    overall = [
        Rank(
            contender,
            by_cohort,
            float(np.mean(list(by_cohort.values()))),
            *percentile_interval(np.mean(replicates[contender], axis=0)),
        )
        for contender, by_cohort in ranks.items()
    ]
    # First by how many cohorts there are: a mean rank over the easy ones alone would put its contender on top.
    return sorted(overall, key=lambda rank: (-len(rank.ranks), rank.mean))


def _ranks(values: Floats, metric: str) -> Floats:
    """Ranks along the first axis, 1 the best; NaN where a replicate has no value."""
    sign = 1 if lower_is_better(metric) else -1
    # Where one has no value in a replicate, nobody has a rank in it: among fewer, a rank means something else.
    found: Floats = rankdata(sign * values, axis=0, nan_policy="propagate")
    return found


def lead(one: Score, other: Score) -> tuple[float, float, float]:
    """By how much the mean of one exceeds that of another, and the 95 % bootstrap interval of that difference.

    Both are judged on the same resampled samples, so what makes a replicate easy for both cancels.
    """
    return one.mean - other.mean, *percentile_interval(one.replicates - other.replicates)


def share_of(one: Score, found: Sequence[Score], upper_bound: str) -> float:
    """The mean as a share of the upper bound's on the same cohort with the same model; NaN without an upper bound."""
    bounds = [
        other.mean
        for other in found
        if other.cohort == one.cohort and other.contender == (one.contender[0], upper_bound)
    ]
    return one.mean / bounds[0] if bounds else np.nan


def labels_of(contenders: Sequence[Contender]) -> dict[Contender, str]:
    """What contenders are called: by the method, with the model where there are several."""
    every = list(dict.fromkeys(contenders))
    several = len({model for model, _ in every}) > 1
    return {contender: f"{contender[1]}, {contender[0]}" if several else contender[1] for contender in every}
