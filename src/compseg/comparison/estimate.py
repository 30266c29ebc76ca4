"""How long a comparison will take: from the jobs that are finished, or from two epochs on trial."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from compseg.comparison.forked import Room, Task
from compseg.comparison.plan import Planned
from compseg.sweeps.attempt import OUTPUT

Kind = tuple[str, str]  # cohort, model


class Estimates:
    """Seconds a job takes, by cohort, model and method; better known with every job that ends.

    Args:
        trials: Seconds of a job of each cohort and model, as two epochs on trial let expect.
    """

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
        if kind in self.trials:
            return self.trials[kind]
        return mean(self.seconds[kind]) if kind in self.seconds else None

    def left(self, jobs: Iterable[Planned], at_once: int) -> float | None:
        """Seconds until jobs are done; None if nothing is known of some."""
        each = [self.of(job) for job in jobs]
        known = [seconds for seconds in each if seconds is not None]
        if len(known) < len(each):
            return None
        # Never less than the longest of them, however many run at once.
        return max([sum(known) / at_once, *known], default=0.0)


def try_out(jobs: Sequence[Planned], epochs: Mapping[Kind, int], folder: Path, room: Room) -> dict[Kind, float]:
    """Train two epochs of the first job of each cohort and model, and reckon how long all take.

    The first epoch reads the samples and warms up, the second is like all that follow.

    Args:
        jobs: At least one of each cohort and model.
        epochs: Of a whole job, by cohort and model.
        folder: Where the trials may lie; it is removed.
        room: What the machine has room for; as many trials run at once as jobs will.

    Returns:
        Seconds of a job. A trial that fails is left out: its job will say what is wrong.
    """
    firsts: dict[Kind, Planned] = {}
    for job in jobs:
        firsts.setdefault((job.cohort, job.model), job)
    tasks = {_trial(job, folder): kind for kind, job in firsts.items()}
    found = {}
    for ended in room.do(tasks):
        seconds = epoch_seconds(ended.task.log.with_name("history.csv"))
        if ended.status == "finished" and seconds:
            kind = tasks[ended.task]
            found[kind] = ended.seconds + (epochs[kind] - len(seconds)) * seconds[-1]
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _trial(job: Planned, folder: Path) -> Task:
    run = folder / job.name
    more = ("trainer.max_epochs=2", "evaluation.split=val", "evaluation.report=false", f'hydra.run.dir="{run}"')
    return Task(job.name, "train", (*job.overrides, *more), run / OUTPUT, job.devices)


def epoch_seconds(history: Path) -> list[float]:
    """The seconds of each epoch of a run; empty without a history."""
    if not history.is_file():
        return []
    with history.open(newline="", encoding="utf-8") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)]


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
