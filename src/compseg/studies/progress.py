"""How far a comparison is: a table on a terminal, a line a job in a log file."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from compseg.comparison.estimate import in_words
from compseg.comparison.plan import Planned
from compseg.comparison.standings import Outcome
from compseg.comparison.table import labels


class Progress:
    """Shows each job as it ends.

    Args:
        outcomes: All jobs as they are at the start, by name.
        figure: The key of `metrics.json` to show.
    """

    def __init__(self, outcomes: Mapping[str, Outcome], figure: str) -> None:
        self.outcomes, self.figure = dict(outcomes), figure
        self.console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def show(self, outcome: Outcome, left: float | None) -> None:
        """Take in a job that has ended.

        Args:
            outcome: What has become of it.
            left: Seconds until all is done, if known.
        """
        self.outcomes[outcome.planned.name] = outcome
        if self.live:
            self.live.update(self._table(left), refresh=True)
        else:
            self.console.print(self._line(outcome, left))

    def _line(self, outcome: Outcome, left: float | None) -> str:
        job, value = outcome.job, outcome.figures.get(self.figure)
        assert job is not None
        words = job.status if value is None else f"{self.figure} {value:.3f}"
        if job.status == "failed":
            words = f"failed: {job.why}"
        took = f", {in_words(job.seconds)}" if job.seconds else ""
        return f"{self._count()} {outcome.planned.name}: {words}{took}{_left(left)}"

    def _count(self) -> str:
        ended = sum(1 for one in self.outcomes.values() if one.job and one.job.status in ("finished", "failed"))
        return f"[{ended}/{len(self.outcomes)}]"

    def _table(self, left: float | None) -> Table:
        jobs = [one.planned for one in self.outcomes.values()]
        cohorts = list(dict.fromkeys(job.cohort for job in jobs))
        caption = f"{self._count()} jobs{_left(left)}"
        table = Table("method", *cohorts, title=self.figure, title_justify="left", caption=caption)
        for entrant, label in labels(job.entrant for job in jobs).items():
            table.add_row(label, *(self._cell(jobs, cohort, entrant) for cohort in cohorts))
        return table

    def _cell(self, jobs: Sequence[Planned], cohort: str, entrant: tuple[str, str]) -> str:
        """`.899  3/5`: the mean so far, and how many of the planned jobs have ended well."""
        mine = [self.outcomes[job.name] for job in jobs if (job.cohort, job.entrant) == (cohort, entrant)]
        values = [one.figures[self.figure] for one in mine if one.trained and self.figure in one.figures]
        failed = sum(1 for one in mine if one.job and one.job.status == "failed")
        mean = f"{math.fsum(values) / len(values):.3f}  " if values else ""
        return f"{mean}{len(values)}/{len(mine)}" + (f", {failed} failed" if failed else "")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"; about {in_words(seconds)} left"
