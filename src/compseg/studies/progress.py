"""How far a comparison is: a table on a terminal, a line a job in a log file, and how long the rest will take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from statistics import mean
from types import TracebackType

from rich.live import Live
from rich.table import Table

from compseg.log import console, in_words, terminal
from compseg.studies.plan import Planned
from compseg.studies.scores import Contender, Outcome, labels_of

Kind = tuple[str, str]  # cohort, model


class Eta:
    """Seconds that jobs take, by cohort, model and method, from trials and from every job that ends."""

    def __init__(self, trials: Mapping[Kind, float] | None = None) -> None:
        self.trials = dict(trials or {})
        self.seconds: dict[tuple[str, ...], list[float]] = {}

    def add(self, job: Planned, seconds: float) -> None:
        """Learn from a job that has ended well."""
        for key in ((job.cohort, job.model, job.method), (job.cohort, job.model)):
            self.seconds.setdefault(key, []).append(seconds)

    def of(self, job: Planned) -> float | None:
        """Seconds of a job: as jobs of its method took, else as a trial says, else as jobs of other methods took."""
        kind = (job.cohort, job.model)
        if alike := self.seconds.get((*kind, job.method)):
            return mean(alike)
        # Before jobs of other methods, which may be baselines that hardly train.
        if kind in self.trials:
            return self.trials[kind]
        return mean(self.seconds[kind]) if kind in self.seconds else None

    def left(self, jobs: Iterable[Planned], at_once: int) -> float | None:
        """Seconds until jobs are done; None if nothing is known about some."""
        each = [self.of(job) for job in jobs]
        known = [seconds for seconds in each if seconds is not None]
        if len(known) < len(each):
            return None
        # Never less than the longest of them, however many run at once.
        return max([sum(known) / at_once, *known], default=0.0)


class Progress:
    """Shows a metric of each job when it ends, and on a terminal how long all takes, each second.

    Args:
        outcomes: Of all jobs, those that are yet to run too.
        metric: Which is shown.
        left: Seconds until all is done, if known.
    """

    def __init__(self, outcomes: Sequence[Outcome], metric: str, left: float | None = None) -> None:
        self.outcomes, self.metric = {one.planned.name: one for one in outcomes}, metric
        self.begun = time.monotonic()
        self._until(left)
        self.console = console(markup=False, highlight=False, soft_wrap=True)
        live = Live(console=self.console, get_renderable=self.table, refresh_per_second=1)
        self.live = live if terminal() else None  # in a log file a table cannot be overwritten

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def show(self, outcome: Outcome, left: float | None) -> None:
        """Show a job that has ended, and the seconds until all is done, if known."""
        self.outcomes[outcome.planned.name] = outcome
        self._until(left)
        if not self.live:
            self.console.print(self._line(outcome, left))

    def _until(self, left: float | None) -> None:
        self.end = None if left is None else time.monotonic() + left

    def _line(self, outcome: Outcome, left: float | None) -> str:
        record, value = outcome.record, outcome.record.metrics.get(self.metric)
        words = record.status if value is None else f"{self.metric} {value:.3f}"
        if record.status == "failed":
            words = f"failed: {record.why}"
        took = f", {in_words(record.seconds)}" if record.seconds else ""
        return f"{self._count()} {outcome.planned.name}: {words}{took}{_left(left)}"

    def _count(self) -> str:
        ended = sum(one.record.status in ("finished", "failed") for one in self.outcomes.values())
        return f"[{ended}/{len(self.outcomes)}]"

    def table(self) -> Table:
        """A row a contender, a column a cohort; below it how many jobs have ended, and how long the rest takes."""
        now = time.monotonic()
        left = None if self.end is None else max(self.end - now, 0)
        jobs = [one.planned for one in self.outcomes.values()]
        cohorts = list(dict.fromkeys(job.cohort for job in jobs))
        caption = f"{self._count()} jobs in {timedelta(seconds=round(now - self.begun))}{_left(left)}"
        table = Table("method", *cohorts, title=self.metric, title_justify="left", caption=caption)
        for contender, label in labels_of([job.contender for job in jobs]).items():
            table.add_row(label, *(self._cell(cohort, contender) for cohort in cohorts))
        return table

    def _cell(self, cohort: str, contender: Contender) -> str:
        """`.899  3/5`: the mean so far, and how many of the planned jobs have ended well."""
        of_cell = (cohort, contender)
        mine = [one for one in self.outcomes.values() if (one.planned.cohort, one.planned.contender) == of_cell]
        metrics = [one.record.metrics for one in mine if one.trained]
        values = [found[self.metric] for found in metrics if self.metric in found]
        failed = sum(one.record.status == "failed" for one in mine)
        so_far = f"{math.fsum(values) / len(values):.3f}  " if values else ""
        return f"{so_far}{len(values)}/{len(mine)}" + (f", {failed} failed" if failed else "")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"; about {in_words(seconds)} left"
