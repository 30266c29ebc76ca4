"""A comparison from its configuration to its table, in the order in which it happens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from compseg.cohort import Cohort
from compseg.config import check_targets, compose
from compseg.config.literals import literal, quoted
from compseg.errors import CompsegError, require
from compseg.evaluation.names import MAP_METRICS
from compseg.files import remove_partials, require_writable
from compseg.log import console, in_words, wrapped
from compseg.run_folder import read_history, refuse_other_kind
from compseg.studies.comparison_page import write_comparison
from compseg.studies.page import Writer
from compseg.studies.plan import Layout, Plan, Planned, composed, plan
from compseg.studies.pooled import write_ensembles, write_pooled
from compseg.studies.progress import Eta, Kind, Progress
from compseg.studies.record import read_record, refuse_another
from compseg.studies.runner import OUTPUT, Job, run_jobs
from compseg.studies.scores import Outcome, read_outcome
from compseg.studies.slots import Slots, count_of
from compseg.training.build import learns_from_masks
from compseg.training.unread import problem_with, unread

TRIALS = ".trials"
Configs = Mapping[tuple[str, str, str], DictConfig]  # of training runs, by cohort, model and method


def compare(cfg: DictConfig) -> Path:
    """Train and judge every method, model, cohort and seed, several at once, and write table, page and picture.

    Jobs that are finished already are left alone; those that were killed continue from their last epoch.

    Args:
        cfg: `conf/compare.yaml`, composed.

    Returns:
        The page, `comparison.md`.

    Raises:
        CompsegError: If an entry is wrong, before anything is trained; or at the end, if jobs have failed.
    """
    folder, layout, chosen = Path(cfg.out), layout_of(cfg), plan(cfg)
    refuse_other_kind(folder, "a comparison", "out")
    for place in (folder, folder / TRIALS):
        require_writable(place, "out")
    remove_partials(folder)
    configs = composed(chosen, training_config)
    refuse_unread_in(chosen, configs)
    cohorts = open_cohorts(configs)
    folds = folds_in(cfg.folds, cfg.repeats) if cfg.cv == "patient" else {}
    groups = groups_of(cohorts, cfg.split) if cfg.cv == "group" else {}
    if cfg.cv == "patient":
        groups = {name: list(folds) for name in cohorts}
        for cohort in cohorts.values():
            cohort.holding_out({"fold": 1, "of": cfg.folds, "seed": 0}, cfg.split)  # too few patients are said now
    refuse_what_needs_truth(layout, configs, cohorts)
    planned = chosen.jobs(groups, folds)
    for one in planned:
        # All folders before the first run, so that no error ends a comparison after hours of training.
        refuse_another(folder / one.name, one.overrides, "out")
        require_writable(folder / one.name, "out")
    slots = slots_of(cfg.jobs, next(iter(configs.values())).trainer.accelerator)
    outcomes = [read_outcome(folder, one) for one in planned]
    todo = [one for one in outcomes if not one.finished(layout.split)]
    done = len(outcomes) - len(todo)
    _print(count_of(len(outcomes), "job") + (f", {done} finished already" if done else "") + f"; {slots}")
    if todo:
        with console().status("loading"):  # moves, on a terminal
            slots.warm_up()
        eta = predicted(outcomes, todo, layout, folder / TRIALS, slots)
        run(folder, outcomes, todo, layout, cfg.report, slots, eta)
    outcomes = [read_outcome(folder, one) for one in planned]
    return conclude(folder, outcomes, layout, in_folds=cfg.cv == "patient")


def training_config(overrides: Sequence[str]) -> DictConfig:
    """The checked configuration of a training run."""
    cfg = compose("train", overrides)
    check_targets(cfg)
    return cfg


def refuse_unread_in(plan: Plan, configs: Configs) -> None:
    """Refuse an override that can have no effect in any of the runs that it was given for.

    Not those that choose: a baseline without a network is compared with every model, and that is what it is for.

    Raises:
        CompsegError: There is one.
    """
    problems: dict[str, list[str | None]] = {}
    for names, config in configs.items():
        found = list(unread(config))
        for override in plan.given(*names):
            problems.setdefault(override, []).append(problem_with(override, found))
    for lines in problems.values():
        if all(lines):
            raise CompsegError(str(lines[0]))


def layout_of(cfg: DictConfig) -> Layout:
    """What will be shown.

    Raises:
        CompsegError: If there is no such split or metric, or none to rank by.
    """
    for key, known in (("split", ("val", "test")), ("cv", ("none", "group", "patient"))):
        if cfg[key] not in known:
            raise CompsegError(f"{key}={cfg[key]}: expected {', '.join(known[:-1])} or {known[-1]}")
    for metric in cfg.metrics:
        if metric not in MAP_METRICS:
            raise CompsegError(f"metrics: {metric}: no such metric; metrics: {', '.join(MAP_METRICS)}")
    ranking = [name for name, metric in MAP_METRICS.items() if metric.selects or cfg.split == "test"]
    if not cfg.metrics or cfg.metrics[0] not in ranking:
        raise CompsegError(
            f"metrics={list(cfg.metrics)}: the first ranks, with split={cfg.split} one of {', '.join(ranking)}"
        )
    return Layout(cfg.split, tuple(cfg.metrics), cfg.upper_bound, tuple(cfg.baselines))


def folds_in(folds: int, repeats: int) -> dict[str, str]:
    """The folds of a repeated cross-validation by what tables call them: values of `data.held_out`."""
    require(repeats >= 1, f"repeats={repeats}: expected a whole number of at least 1")
    return {
        f"repeat {repeat + 1}, fold {fold} of {folds}": f"{{fold:{fold},of:{folds},seed:{repeat}}}"
        for repeat in range(repeats)
        for fold in range(1, folds + 1)
    }


def open_cohorts(configs: Configs) -> dict[str, Cohort]:
    """Every cohort by name; those that are to be made are made now, once."""
    found = {}
    for (name, _, _), config in configs.items():
        if name not in found:
            data = instantiate(config.data)
            # Here and once: jobs side by side would all wait at the lock of the cohort.
            data.prepare_data()
            found[name] = data.cohort
    return found


def groups_of(cohorts: Mapping[str, Cohort], split: str) -> dict[str, list[str]]:
    """The groups to leave out in turn: all, or those of the other samples if test samples stay unseen."""
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
    """Refuse a cohort without the truth that the ranking metric or a method needs."""
    learners = [method for (_, _, method), config in configs.items() if learns_from_masks(config)]
    for name, cohort in cohorts.items():
        with_truth = {which for which in ("train", "val", "test") if _has_truth(cohort, which)}
        if MAP_METRICS[layout.metrics[0]].needs_truth and layout.split not in with_truth:
            raise CompsegError(
                f"metrics: {layout.metrics[0]} ranks and needs truth, {name} ({cohort.path}) has none in split "
                f"{layout.split}; put area_auc first, or leave the cohort out"
            )
        if learners and "train" not in with_truth:
            raise CompsegError(
                f"methods: {learners[0]} learns from truth, {name} ({cohort.path}) has none in split train; "
                "leave the method or the cohort out"
            )


def _has_truth(cohort: Cohort, which: str) -> bool:
    # Of disease samples: healthy ones get an empty truth as soon as any sample has one.
    return any(info.label and cohort.has_truth(info.name) for info in cohort.split(which))


def slots_of(jobs: int | str, accelerator: str) -> Slots:
    """The slots of this machine; with `auto` one job a GPU, or where there is none one a core."""
    if jobs != "auto" and (not isinstance(jobs, int) or jobs < 1):
        raise CompsegError(f"jobs={jobs}: expected auto or how many at once, at least 1")
    return Slots(None if jobs == "auto" else int(jobs), accelerator, fork=True, share_gpus=True)


def predicted(outcomes: Sequence[Outcome], todo: Sequence[Outcome], layout: Layout, folder: Path, slots: Slots) -> Eta:
    """How long jobs take, from those that are finished, else from two epochs on trial in a folder; and print it."""
    eta = Eta()
    for one in outcomes:
        if one.trained and one.record.seconds:
            eta.add(one.planned, one.record.seconds)
    unknown = [one.planned for one in todo if eta.of(one.planned) is None]
    if unknown:
        _print("how long will it take? two epochs of each cohort and model on trial")
        unknown.sort(key=lambda job: job.method in layout.baselines)  # they hardly train, and tell little of others
        with console().status("on trial"):
            eta.trials = try_out(unknown, folder, slots)
    jobs = [one.planned for one in todo]
    seconds = eta.left(jobs, slots.count)
    if seconds is None:
        _print("it cannot be said how long this will take: trial epochs failed")
        return eta
    # Reversed, here and below, because the last of equal keys stays: that of the first job.
    each = {(job.cohort, job.model): eta.of(job) or 0.0 for job in reversed(jobs)}
    words = ", ".join(f"{in_words(value)} on {cohort} with {model}" for (cohort, model), value in each.items())
    until = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
    by = "trial epochs" if unknown else "finished jobs"
    _print(
        f"{count_of(len(jobs), 'job')} to do, about {in_words(seconds)}, until {until} (by {by}; a job takes {words})"
    )
    return eta


def try_out(jobs: Sequence[Planned], folder: Path, slots: Slots) -> dict[Kind, float]:
    """Train two epochs of the first job of each cohort and model; as many at once as jobs will.

    The first epoch reads the samples and warms up, the second is like all that follow.

    Returns:
        Seconds of a whole job. A trial that fails is left out: its job will say what is wrong.
    """
    firsts = {(job.cohort, job.model): job for job in reversed(jobs)}
    trials = {_trial(job, folder): job for job in reversed(firsts.values())}
    found = {}
    for trial in run_jobs(trials, slots):
        record, job = read_record(trial.folder), trials[trial]
        seconds = [float(row["seconds"]) for row in read_history(trial.folder)]
        if record.status == "finished" and record.seconds and seconds:
            epochs = training_config(job.overrides).trainer.max_epochs
            found[job.cohort, job.model] = record.seconds + (epochs - len(seconds)) * seconds[-1]
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _trial(job: Planned, folder: Path) -> Job:
    run = folder / job.name
    # A trial must not look at test samples either.
    judged = ("evaluation.split=val", "evaluation.report=false")
    more = ("trainer.max_epochs=2", *judged, f"hydra.run.dir={quoted(run)}")
    return Job(run, job.overrides, ("-m", "compseg.train", *job.overrides, *more), devices=job.devices)


def run(
    folder: Path,
    outcomes: Sequence[Outcome],
    todo: Sequence[Outcome],
    layout: Layout,
    report: bool,
    slots: Slots,
    eta: Eta,
) -> None:
    """Run what is left to do; meanwhile table, page and picture are kept up to date."""
    planned = [one.planned for one in outcomes]
    writer = Writer(lambda: write_comparison(folder, [read_outcome(folder, one) for one in planned], layout))
    left = {one.folder: one.planned for one in todo}
    with Progress(outcomes, layout.rank_by, eta.left(left.values(), slots.count)) as progress:
        for job in run_jobs([job_of(one, layout.split, report) for one in todo], slots):
            outcome = read_outcome(folder, left.pop(job.folder))
            # To evaluate takes seconds; counted as a training it would make the time that is left too short.
            if job.trains and outcome.trained and outcome.record.seconds:
                eta.add(outcome.planned, outcome.record.seconds)
            writer.soon()
            progress.show(outcome, eta.left(left.values(), slots.count))


def job_of(one: Outcome, split: str, report: bool) -> Job:
    """Train; or, where only metrics are missing, evaluate."""
    # What was chosen with split=val and is now asked for with split=test need not be trained again.
    only_evaluate = one.trained and (one.folder / "segmenter").is_dir()
    if only_evaluate:
        command = ["compseg.evaluate", f"run={quoted(one.folder)}", f"split={split}", f"report={literal(report)}"]
    else:
        judged = (f"evaluation.split={split}", f"evaluation.report={literal(report)}")
        into = ("trainer.resume=auto", f"hydra.run.dir={quoted(one.folder)}")
        command = ["compseg.train", *one.planned.overrides, *into, *judged]
    devices = one.planned.devices
    return Job(one.folder, one.planned.overrides, ("-m", *command), devices=devices, trains=not only_evaluate)


def conclude(folder: Path, outcomes: Sequence[Outcome], layout: Layout, *, in_folds: bool = False) -> Path:
    """Write table, page and picture for the last time; of folds, the metrics of all together too.

    Raises:
        CompsegError: If jobs have failed, with the words of the first.
    """
    with console().status("writing the table"):
        path = write_comparison(folder, outcomes, layout)
    if in_folds:
        if table := write_pooled(folder, outcomes, layout.split):
            _print(f"all folds together: {table}")
        for place in write_ensembles(folder, outcomes):
            _print(f"one segmenter of all folds: {place}")
    bad = [one for one in outcomes if not one.finished(layout.split)]
    if bad:
        first = bad[0]
        why = "not started" if first.record.status == "waiting" else first.record.why or "no metrics"
        raise CompsegError(
            f"{len(bad)} of {len(outcomes)} jobs not finished, {first.planned.name} first: {why} "
            f"({first.folder / OUTPUT}); the same command tries them again; the others: {path}"
        )
    return path


def _print(line: str) -> None:
    # In a log file the line would come only after the hours that it announces.
    print(wrapped(line), flush=True)
