"""Who stands where: figures of all jobs, averaged, with intervals over seeds and samples, and ranked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from compseg.comparison.plan import Planned
from compseg.evaluation.intervals import percentile_interval
from compseg.sweeps.jobs import Job, lower_is_better, read_job, recorded_overrides

Floats = NDArray[np.float64]
Entrant = tuple[str, str]  # model, method


@dataclass(frozen=True)
class Outcome:
    """What has become of a planned job.

    Attributes:
        planned: The job.
        job: What its folder tells; None: it has not been started.
        folder: Its run folder.
    """

    planned: Planned
    job: Job | None
    folder: Path

    def finished(self, split: str) -> bool:
        """Whether it has ended well and has the figures of a split."""
        return self.trained and any(name.startswith(f"{split}/") and name != "val/loss" for name in self.figures)

    @property
    def trained(self) -> bool:
        """Whether it has ended well, whatever was judged."""
        return self.job is not None and self.job.status == "finished"

    @property
    def figures(self) -> Mapping[str, float]:
        """`metrics.json`; empty while there is none."""
        return (self.job.figures or {}) if self.job else {}

    @cached_property
    def replicates(self) -> Mapping[str, Floats]:
        """`(R,)` bootstrap replicates of each figure; empty while there are none."""
        path = self.folder / "bootstrap.npz"
        if not path.is_file():
            return {}
        with np.load(path) as stored:
            return dict(stored)


def read_outcomes(folder: Path, jobs: Sequence[Planned]) -> list[Outcome]:
    """What has become of every planned job, in their order."""
    return [read_outcome(folder, job) for job in jobs]


def read_outcome(folder: Path, planned: Planned) -> Outcome:
    """What has become of one planned job."""
    run = folder / planned.name
    return Outcome(planned, None if recorded_overrides(run) is None else read_job(run, planned.name), run)


@dataclass(frozen=True)
class Standing:
    """How one entrant does on one cohort.

    Attributes:
        entrant: Model and method.
        cohort: Name of the cohort.
        held_out: The group left out; empty for a cohort's own splits, and for the mean over all left-out groups.
        values: The figure of each finished job; of a mean over groups, by seed.
        planned: How many values there will be.
        mean: Their mean; NaN without values.
        sd: Their standard deviation (n - 1); NaN for fewer than two.
        low: Lower end of the 95 % bootstrap interval of the mean, over seeds and samples; NaN without replicates.
        high: Upper end.
        draws: `(R,)` bootstrap replicates of the mean; NaN where there are none.
    """

    entrant: Entrant
    cohort: str
    held_out: str
    values: tuple[float, ...]
    planned: int
    mean: float
    sd: float
    low: float
    high: float
    draws: Floats


REPLICATES = 1000


def standing(outcomes: Sequence[Outcome], figure: str, held_out: str = "") -> Standing:
    """The standing of one entrant on one cohort.

    Args:
        outcomes: Its jobs there; of one left-out group, or of all.
        figure: A key of `metrics.json`.
        held_out: The left-out group that the standing is of.
    """
    planned = outcomes[0].planned
    by_group: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_group.setdefault(outcome.planned.held_out, []).append(outcome)
    values = _values_by_seed(by_group, figure)
    draws = np.mean([_draws(members, figure) for members in by_group.values()], axis=0)
    low, high = percentile_interval(draws)
    return Standing(
        entrant=planned.entrant,
        cohort=planned.cohort,
        held_out=held_out,
        values=tuple(values),
        planned=len({outcome.planned.seed for outcome in outcomes}),
        mean=float(np.mean(values)) if values else np.nan,
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
        low=low,
        high=high,
        draws=draws,
    )


def _values_by_seed(by_group: Mapping[str, Sequence[Outcome]], figure: str) -> list[float]:
    """The figure of each seed that all groups have it of, averaged over the groups."""
    found = [
        {outcome.planned.seed: outcome.figures[figure] for outcome in members if figure in outcome.figures}
        for members in by_group.values()
    ]
    seeds = [seed for seed in found[0] if all(seed in values for values in found)]
    return [float(np.mean([values[seed] for values in found])) for seed in seeds]


def _draws(outcomes: Sequence[Outcome], figure: str) -> Floats:
    """`(R,)` means over seeds drawn with replacement, each judged on the same draw of samples."""
    runs = [one.replicates[figure] for one in outcomes if figure in one.figures and figure in one.replicates]
    if not runs:
        return np.full(REPLICATES, np.nan)
    generator = np.random.default_rng(0)  # the same for every entrant, so that entrants are compared in pairs
    drawn = generator.integers(len(runs), size=(REPLICATES, len(runs)))
    means: Floats = np.array(runs)[drawn, np.arange(REPLICATES)[:, None]].mean(axis=1)
    return means


def standings(outcomes: Sequence[Outcome], figure: str) -> list[Standing]:
    """The standing of each entrant on each cohort, means over left-out groups; cohorts and entrants in their order."""
    cells: dict[tuple[str, Entrant], list[Outcome]] = {}
    for outcome in outcomes:
        cells.setdefault((outcome.planned.cohort, outcome.planned.entrant), []).append(outcome)
    return [standing(members, figure) for members in cells.values()]


def by_group(outcomes: Sequence[Outcome], figure: str) -> list[Standing]:
    """The standing of each entrant on each left-out group of each cohort; empty where no group is left out."""
    cells: dict[tuple[str, str, Entrant], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.planned.held_out:
            key = outcome.planned.cohort, outcome.planned.held_out, outcome.planned.entrant
            cells.setdefault(key, []).append(outcome)
    return [standing(members, figure, key[1]) for key, members in cells.items()]


def ordered(standings: Sequence[Standing], figure: str) -> list[Standing]:
    """The best first, those without a figure last."""
    sign = 1 if lower_is_better(figure) else -1
    return sorted(standings, key=lambda one: sign * one.mean if np.isfinite(one.mean) else np.inf)


@dataclass(frozen=True)
class Place:
    """An entrant in the overall ranking.

    Attributes:
        entrant: Model and method.
        ranks: Its rank on each cohort where it has a figure, 1 the best, ties halved.
        mean: Their mean; NaN without any.
        low: Lower end of the 95 % bootstrap interval of the mean rank.
        high: Upper end.
    """

    entrant: Entrant
    ranks: Mapping[str, float]
    mean: float
    low: float
    high: float


def places(standings: Sequence[Standing], figure: str, apart: Collection[str] = ()) -> list[Place]:
    """The overall ranking by mean rank over cohorts, the best first.

    Args:
        standings: Of all entrants on all cohorts.
        figure: That they are standings in.
        apart: Methods that are marks to compare with, ceiling and floors: they get no place.
    """
    judged = [one for one in standings if one.entrant[1] not in apart and np.isfinite(one.mean)]
    ranks: dict[Entrant, dict[str, float]] = {}
    draws: dict[Entrant, list[Floats]] = {}
    for cohort in dict.fromkeys(one.cohort for one in judged):
        members = [one for one in judged if one.cohort == cohort]
        drawn = _ranks(np.array([one.draws for one in members]), figure)
        for i, one in enumerate(members):
            ranks.setdefault(one.entrant, {})[cohort] = float(_ranks(np.array([m.mean for m in members]), figure)[i])
            draws.setdefault(one.entrant, []).append(drawn[i])
    found = [
        Place(entrant, by_cohort, float(np.mean(list(by_cohort.values()))), *_interval(draws[entrant]))
        for entrant, by_cohort in ranks.items()
    ]
    return sorted(found, key=lambda place: (-len(place.ranks), place.mean))


def _ranks(values: Floats, figure: str) -> Floats:
    """Ranks along the first axis, 1 the best; NaN where a replicate has no figure."""
    sign = 1 if lower_is_better(figure) else -1
    found: Floats = rankdata(sign * values, axis=0, nan_policy="propagate")
    return found


def _interval(draws: Sequence[Floats]) -> tuple[float, float]:
    return percentile_interval(np.mean(draws, axis=0))


def lead(one: Standing, other: Standing) -> tuple[float, float, float]:
    """By how much the mean of one exceeds that of another, and the 95 % bootstrap interval of that difference.

    Both are judged on the same draws of samples, so what makes a draw easy for both cancels.
    """
    return one.mean - other.mean, *percentile_interval(one.draws - other.draws)


def share_of(one: Standing, standings: Sequence[Standing], ceiling: str) -> float:
    """The mean as a share of the ceiling's on the same cohort with the same model; NaN without such a ceiling."""
    of_ceiling = [
        other.mean for other in standings if other.cohort == one.cohort and other.entrant == (one.entrant[0], ceiling)
    ]
    return one.mean / of_ceiling[0] if of_ceiling else np.nan
