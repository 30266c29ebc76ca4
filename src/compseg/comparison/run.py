"""A comparison from its configuration to its tables, in the order in which it happens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from compseg.cohort import Cohort
from compseg.comparison.estimate import Estimates, in_words, try_out
from compseg.comparison.forked import Forked, Room, Task
from compseg.comparison.picture import draw
from compseg.comparison.plan import Compose, Plan, Planned, composed, plan, quoted
from compseg.comparison.progress import Progress
from compseg.comparison.standings import Outcome, read_outcome, read_outcomes
from compseg.comparison.table import Layout, jobs_csv, page
from compseg.errors import CompsegError
from compseg.evaluation.metrics import MAP_METRICS
from compseg.files import atomic_bytes, atomic_text
from compseg.sweeps.attempt import OUTPUT
from compseg.sweeps.jobs import refuse_another, write_record

Configs = Mapping[tuple[str, str, str], DictConfig]  # of training runs, by cohort, model and method
Epochs = Mapping[tuple[str, str], int]  # by cohort and model

# Tables are written anew while jobs run, but no more than this share of the time goes into them.
WRITING_SHARE = 0.03


def compare(cfg: DictConfig, compose: Compose) -> Path:
    """Train and judge every method, model, cohort and seed, several at once, and write tables and picture.

    Jobs that are finished already are left alone, those that were killed go on from their last epoch.

    Args:
        cfg: `conf/compare.yaml`, composed.
        compose: Gives the checked configuration of `compseg.train` with some overrides.

    Returns:
        The page, `comparison.md`.

    Raises:
        CompsegError: If an entry is at fault, before anything is trained; or at the end, if jobs have failed.
    """
    folder, layout, chosen = Path(cfg.out), layout_of(cfg), plan(cfg)
    configs = composed(chosen, compose)
    cohorts = open_cohorts(configs)
    groups = groups_of(cohorts, cfg.split) if cfg.cv == "group" else {}
    refuse_what_needs_truth(layout, configs, cohorts)
    jobs = chosen.jobs(groups)
    for job in jobs:
        refuse_another(folder / job.name, job.overrides, "out")
    room = Room(cfg.jobs, next(iter(configs.values())).trainer.accelerator)
    comparison = Comparison(folder, jobs, layout, cfg.report, room)
    outcomes = comparison.run(epochs_of(chosen, configs))
    return concluded(folder, outcomes, layout)


def layout_of(cfg: DictConfig) -> Layout:
    """What will be shown, from the configuration."""
    for key, known in (("split", ("val", "test")), ("cv", ("none", "group"))):
        if cfg[key] not in known:
            raise CompsegError(f"{key}={cfg[key]}: expected {' or '.join(known)}")
    for figure in cfg.figures:
        if figure not in MAP_METRICS:
            raise CompsegError(f"figures: {figure}: no such figure; figures: {', '.join(MAP_METRICS)}")
    ranking = [name for name, metric in MAP_METRICS.items() if metric.selects or cfg.split == "test"]
    if not cfg.figures or cfg.figures[0] not in ranking:
        raise CompsegError(
            f"figures={list(cfg.figures)}: the first ranks, with split={cfg.split} one of {', '.join(ranking)}"
        )
    return Layout(cfg.split, tuple(cfg.figures), cfg.ceiling, tuple(cfg.floors))


def open_cohorts(configs: Configs) -> dict[str, Cohort]:
    """Every cohort by name; those that are to be made are made now, once."""
    found = {}
    for (name, _, _), config in configs.items():
        if name not in found:
            data = instantiate(config.data)
            data.prepare_data()
            found[name] = data.cohort
    return found


def groups_of(cohorts: Mapping[str, Cohort], split: str) -> dict[str, list[str]]:
    """The groups to leave out in turn: all, or where test samples stay unseen those of the other samples."""
    found = {}
    for name, cohort in cohorts.items():
        infos = [info for info in cohort.infos if split == "test" or info.split != "test"]
        found[name] = sorted({info.group for info in infos if info.group})
        if len(found[name]) < 2:
            there = ", ".join(found[name]) or "none"
            raise CompsegError(
                f"cv=group: {name} ({cohort.path}): expected at least 2 groups among its samples, found {there}; "
                "prepare it with a column group, or leave it out"
            )
    return found


def refuse_what_needs_truth(layout: Layout, configs: Configs, cohorts: Mapping[str, Cohort]) -> None:
    """Complain of a cohort without the truth that the ranking figure or a method needs."""
    learners = [method for (_, _, method), config in configs.items() if _needs_truth(config)]
    for name, cohort in cohorts.items():
        drawn = {which for which in ("train", "val", "test") if _has_truth(cohort, which)}
        if MAP_METRICS[layout.figures[0]].needs_truth and layout.split not in drawn:
            raise CompsegError(
                f"figures: {layout.figures[0]} ranks and needs truth, {name} ({cohort.path}) has none in split "
                f"{layout.split}; put area_auc first, or leave the cohort out"
            )
        if learners and "train" not in drawn:
            raise CompsegError(
                f"methods: {learners[0]} learns from truth, {name} ({cohort.path}) has none in split train; "
                "leave the method or the cohort out"
            )


def _needs_truth(config: DictConfig) -> bool:
    trains_on_pseudo_labels = bool(config.pseudo_labels and config.pseudo_labels.supervises)
    return bool(instantiate(config.objective).needs_truth) and not trains_on_pseudo_labels


def _has_truth(cohort: Cohort, which: str) -> bool:
    return any(info.label and cohort.has_truth(info.name) for info in cohort.split(which))


def epochs_of(chosen: Plan, configs: Configs) -> dict[tuple[str, str], int]:
    """Epochs of a job by cohort and model, as far as the composed configurations tell."""
    of_model: dict[str, int] = {}
    of_cohort: dict[str, int] = {}
    for (cohort, model, _), config in configs.items():
        of_model.setdefault(model, int(config.trainer.max_epochs))
        of_cohort.setdefault(cohort, int(config.trainer.max_epochs))
    first = chosen.cohorts[0].name
    return {
        (c.name, m.name): of_model[m.name] if c.name == first else of_cohort[c.name]
        for c in chosen.cohorts
        for m in chosen.models
    }


class Comparison:
    """The jobs of a comparison while they are done.

    Args:
        folder: Of the comparison.
        jobs: All that are planned.
        layout: What is shown of them.
        report: Whether each job writes maps, figures and a page of its own.
        room: What the machine has room for.
    """

    def __init__(self, folder: Path, jobs: Sequence[Planned], layout: Layout, report: bool, room: Room) -> None:
        self.folder, self.jobs, self.layout, self.report, self.room = folder, list(jobs), layout, report, room
        self.estimates = Estimates()
        self.writing = Writing(folder, self.jobs, layout)

    def run(self, epochs: Epochs) -> list[Outcome]:
        """Do what is left to do; what has become of all jobs."""
        outcomes = read_outcomes(self.folder, self.jobs)
        todo = [one for one in outcomes if not one.finished(self.layout.split)]
        self._learn(outcomes, todo, epochs)
        left = {one.planned.name: one for one in todo}
        with Progress({one.planned.name: one for one in outcomes}, self.layout.ranked_by) as progress:
            for ended in self.room.do(map(self._started, todo)):
                outcome = self._record(left.pop(ended.task.name), ended)
                self.writing.soon()
                progress.show(outcome, self._seconds_left(left))
        return read_outcomes(self.folder, self.jobs)

    def _learn(
        self, outcomes: Sequence[Outcome], todo: Sequence[Outcome], epochs: Mapping[tuple[str, str], int]
    ) -> None:
        """Find out how long it will take, and say so."""
        for one in outcomes:
            if one.trained and one.job and one.job.seconds:
                self.estimates.add(one.planned, one.job.seconds)
        done = len(outcomes) - len(todo)
        self._say(count_of(len(outcomes)) + (f", {done} finished already" if done else "") + f"; {self.room}")
        if todo:
            self.room.warm_up()
        unknown = [one.planned for one in todo if self.estimates.of(one.planned) is None]
        unknown.sort(key=lambda job: job.method in self.layout.floors)  # what hardly trains tells little of what does
        if unknown:
            self._say("how long will it take? two epochs of each cohort and model on trial")
            self.estimates.trials = try_out(unknown, epochs, self.folder / ".trials", self.room)
        if todo:
            self._say(self._forecast([one.planned for one in todo], measured=bool(unknown)))

    def _forecast(self, jobs: Sequence[Planned], *, measured: bool) -> str:
        seconds = self.estimates.left(jobs, self.room.count)
        if seconds is None:
            return "it cannot be said how long this will take: trial epochs failed"
        how = "trial epochs" if measured else "finished jobs"
        each = {(job.cohort, job.model): self.estimates.of(job) or 0.0 for job in reversed(jobs)}
        words = ", ".join(f"{in_words(value)} on {cohort} with {model}" for (cohort, model), value in each.items())
        until = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
        return f"{count_of(len(jobs))} to do, about {in_words(seconds)}, until {until} (by {how}; a job takes {words})"

    def _started(self, one: Outcome) -> Task:
        """The task of a job that is written down as begun: train; or, where only figures are missing, judge."""
        if not one.trained:
            write_record(one.folder, one.planned.overrides, "started")
        log = one.folder / OUTPUT
        log.unlink(missing_ok=True)  # a complaint of an earlier attempt is not this one's
        if one.trained and (one.folder / "segmenter").is_dir():
            verb, arguments = "evaluate", [f"run={quoted(one.folder)}"]
        else:
            verb = "train"
            arguments = [*one.planned.overrides, "trainer.resume=auto", f"hydra.run.dir={quoted(one.folder)}"]
        test = f"test={_word(self.layout.split == 'test')}" if verb == "train" else f"split={self.layout.split}"
        judging = (test, f"report={_word(self.report)}")
        return Task(one.planned.name, verb, (*arguments, *judging), log, one.planned.devices)

    def _record(self, one: Outcome, ended: Forked) -> Outcome:
        """Write down how a job went."""
        training = ended.task.verb == "train"
        seconds = round(ended.seconds, 1) if training or one.job is None else one.job.seconds
        write_record(one.folder, one.planned.overrides, ended.status, ended.why, seconds)
        if training and ended.status == "finished":
            self.estimates.add(one.planned, ended.seconds)
        return read_outcome(self.folder, one.planned)

    def _seconds_left(self, left: Mapping[str, Outcome]) -> float | None:
        return self.estimates.left([one.planned for one in left.values()], self.room.count)

    @staticmethod
    def _say(line: str) -> None:
        print(line, flush=True)


def count_of(jobs: int) -> str:
    """`1 job`, `2 jobs`."""
    return f"{jobs} job{'s' * (jobs != 1)}"


def _word(value: bool) -> str:
    return str(value).lower()


class Writing:
    """Writes tables and picture anew, now and then.

    Args:
        folder: Of the comparison.
        jobs: All that are planned.
        layout: What is shown.
    """

    def __init__(self, folder: Path, jobs: Sequence[Planned], layout: Layout) -> None:
        self.folder, self.jobs, self.layout = folder, jobs, layout
        self.next = 0.0

    def soon(self) -> None:
        """Write if the last time is long enough ago."""
        start = time.monotonic()
        if start >= self.next:
            write(self.folder, read_outcomes(self.folder, self.jobs), self.layout)
            took = time.monotonic() - start
            self.next = start + took / WRITING_SHARE


def write(folder: Path, outcomes: Sequence[Outcome], layout: Layout) -> Path:
    """Write `comparison.csv`, `comparison.md` and, as soon as there is a figure, `comparison.png`; the page's path."""
    atomic_text(folder / "comparison.csv", jobs_csv(outcomes, layout.split))
    picture = draw(outcomes, layout)
    if picture:
        atomic_bytes(folder / "comparison.png", picture)
    atomic_text(folder / "comparison.md", page(folder.name, outcomes, layout, with_picture=picture is not None))
    return folder / "comparison.md"


def concluded(folder: Path, outcomes: Sequence[Outcome], layout: Layout) -> Path:
    """Write the tables for the last time.

    Raises:
        CompsegError: If jobs have failed, with the words of the first.
    """
    path = write(folder, outcomes, layout)
    bad = [one for one in outcomes if not one.finished(layout.split)]
    if bad:
        first = bad[0]
        why = first.job.why if first.job else "not started"
        raise CompsegError(
            f"{len(bad)} of {len(outcomes)} jobs not finished, {first.planned.name} first: {why or 'no figures'} "
            f"({first.folder / OUTPUT}); the same command tries them again; the others: {path}"
        )
    return path
