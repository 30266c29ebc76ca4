"""A sweep that searches: an Optuna study asks for jobs and is told their results; it outlives the process."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from compseg.errors import CompsegError
from compseg.evaluation.names import lower_is_better
from compseg.faults import run_lock
from compseg.files import atomic_text
from compseg.private import open_trial
from compseg.studies.record import read_record

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

SWEEP, JOB, ARGUMENTS, RANK_BY = "sweep", "job", "arguments", "rank_by"  # attributes of trials and studies
PRUNING = "++callbacks.pruning._target_=compseg.studies.pruning.Pruning"


def search(config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Run trials until the study has as many as `hydra.sweeper.n_trials`; side by side if the launcher can.

    Raises:
        CompsegError: If there is nothing to search or nothing to go by, or another process works on the sweep.
    """
    settings, sweep = config.hydra.sweeper, Path(config.hydra.sweep.dir).absolute()
    if config.evaluation.split == "none":
        raise CompsegError("evaluation.split=none: a search goes by a metric of the evaluation; leave it out")
    space, rank_by = Space(arguments, loader), config.evaluation.rank_by
    sweep.mkdir(parents=True, exist_ok=True)
    with run_lock(sweep):
        # deepcopy=False, here and below: Optuna copies every trial by default, and they are only read.
        trials = len(open_study(settings, rank_by).get_trials(deepcopy=False))
        # Not the seed alone: a search that is continued would ask for its first trials again.
        sampler = instantiate(settings.strategy, _partial_=True)(seed=settings.seed + trials)
        study = SweepStudy(open_study(settings, rank_by, sampler), space, sweep, arguments)
        atomic_text(sweep / "multirun.yaml", OmegaConf.to_yaml(config))
        jobs = study.jobs(settings.n_trials)
        if not settings.pruner._target_.endswith("NopPruner"):
            jobs = ((number, [*overrides, PRUNING]) for number, overrides in jobs)
        for number, outcome in _run(launcher, jobs):
            study.tell(number, read_record(folder_of(outcome)).status, outcome.return_value)


def folder_of(outcome: JobReturn) -> Path:
    """The folder of a job that has ended."""
    assert outcome.hydra_cfg is not None
    return Path(outcome.hydra_cfg.hydra.runtime.output_dir)


def _run(launcher: Launcher, jobs: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, JobReturn]]:
    if hasattr(launcher, "run"):
        yield from launcher.run(jobs)
    else:  # Hydra's own: one after the other
        for number, overrides in jobs:
            (outcome,) = launcher.launch([overrides], number)
            yield number, outcome


class Space:
    """What is searched, and what holds for all trials.

    Args:
        arguments: Overrides of the command line. `interval(a, b)` is a range of numbers, `int(interval(a, b))` of whole
            ones, with `tag(log, ...)` around it on a logarithmic scale; `range(a, b, step)` of whole numbers is a range
            too; any other sweep is a choice.
        loader: Hydra's, for `glob(...)`.

    Raises:
        CompsegError: If nothing is swept.
    """

    def __init__(self, arguments: Sequence[str], loader: ConfigLoader | None = None) -> None:
        parsed: list[Override] = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
        self.swept = {str(item.get_key_element()): item for item in parsed if item.is_sweep_override()}
        self.fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        if not self.swept:
            raise CompsegError(
                "hydra/sweeper=search: nothing to search; give a key several values (model=unet,segnet) "
                "or a range (head.alpha=interval(0.01,0.5))"
            )

    def suggest(self, trial: Trial) -> list[str]:
        """The overrides of a trial's job."""
        return [f"{key}={_suggest(trial, key, item)}" for key, item in self.swept.items()] + self.fixed

    def overrides_of(self, params: dict[str, Any]) -> list[str]:
        """The overrides of the job of a trial that was suggested before."""
        return [f"{key}={params[key]}" for key in self.swept] + self.fixed


def _suggest(trial: Trial, key: str, item: Override) -> str:
    sweep = item.value()
    if isinstance(sweep, IntervalSweep):
        ends: tuple[Any, Any] = (sweep.start, sweep.end)
        (low, high), log = ends, "log" in sweep.tags
        if {type(low), type(high)} == {int}:
            return repr(int(trial.suggest_int(key, low, high, log=log)))
        return repr(float(trial.suggest_float(key, low, high, log=log)))
    choices = list(item.sweep_string_iterator())
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and all(_is_whole(choice) for choice in choices):
        first, last = int(choices[0]), int(choices[-1])
        step = abs(int(choices[1]) - first) if len(choices) > 1 else 1
        # As a range and not as names, so that the sampler knows which values are neighbours.
        return repr(int(trial.suggest_int(key, min(first, last), max(first, last), step=step)))
    return str(trial.suggest_categorical(key, choices))


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdigit()


class SweepStudy:
    """Which trials a sweep still has to run.

    A trial keeps the sweep's folder and the number of its job in its attributes. A job that fails is a trial that
    failed; when the sweep is started again, another trial with the same values runs it again in the same folder.

    Raises:
        CompsegError: If the study was begun with other arguments.
    """

    def __init__(self, study: Study, space: Space, sweep: Path, arguments: Sequence[str]) -> None:
        self.study, self.space, self.sweep = study, space, str(sweep.absolute())
        self.running: dict[int, int] = {}  # trial by job
        begun_with = study.user_attrs.get(ARGUMENTS, list(arguments))
        if sorted(begun_with) != sorted(arguments):
            differing = sorted(set(begun_with) ^ set(arguments))
            raise CompsegError(
                f"study {study.study_name}: begun with other values ({' '.join(differing)}); repeat the sweep with "
                "those it was started with, or give another hydra.sweep.dir"
            )
        study.set_user_attr(ARGUMENTS, list(arguments))

    def jobs(self, n_trials: int) -> Iterator[tuple[int, list[str]]]:
        """Numbers and overrides of the jobs that are left, each made up when it is asked for.

        First those that were running when the sweep was killed, then those that failed, then new ones.
        """
        last = self._last_of_each_job()
        for trial in last.values():
            if trial.state.name == "RUNNING":
                job = int(trial.user_attrs[JOB])
                self.running[job] = trial.number
                yield job, self.space.overrides_of(trial.params)
        for trial in last.values():
            if trial.state.name == "FAIL":
                yield self._ask(trial)
        # Of all sweeps: several machines that share a study share its number of trials.
        while len(self._last_of_each_job(of_all=True)) < n_trials:
            yield self._ask()

    def tell(self, job: int, status: str, metric: float | None) -> None:
        """Tell the study the result of a job; one that was stopped stays running, and is continued another time."""
        from optuna.trial import TrialState

        number = self.running.pop(job)
        if status in ("unfinished", "running"):
            return
        # The last condition leaves out NaN, which is no result to learn from.
        if status == "finished" and metric is not None and metric == metric:
            self.study.tell(number, metric)
        else:
            self.study.tell(number, state=TrialState.PRUNED if status == "pruned" else TrialState.FAIL)

    def _last_of_each_job(self, *, of_all: bool = False) -> dict[tuple[str, int], FrozenTrial]:
        """The latest trial of each job of this sweep, or of all sweeps and programs that work on the study."""
        last = {}
        for trial in self.study.get_trials(deepcopy=False):
            sweep = trial.user_attrs.get(SWEEP, "")
            begun = trial.state.is_finished() or sweep  # a running trial without a sweep died before it had a job
            if begun and (of_all or sweep == self.sweep):
                last[sweep, trial.user_attrs.get(JOB, trial.number)] = trial
        return last

    def _ask(self, again: FrozenTrial | None = None) -> tuple[int, list[str]]:
        """A new trial, or one with the values of a failed one."""
        if again is not None:
            self.study.enqueue_trial(again.params)
        trial = self.study.ask()
        overrides = self.space.suggest(trial)
        job = int(again.user_attrs[JOB]) if again is not None and trial.params == again.params else trial.number
        # Last, and the folder after the number: a trial with a folder is complete and may be continued.
        trial.set_user_attr(JOB, job)
        trial.set_user_attr(SWEEP, self.sweep)
        self.running[job] = trial.number
        return job, overrides


def open_study(settings: DictConfig, rank_by: str, sampler: BaseSampler | None = None) -> Study:
    """The study, made if there is none; only a process that asks for trials needs a sampler.

    Raises:
        CompsegError: If Optuna is not installed, the storage cannot be opened, or the study goes by another metric.
    """
    optuna = import_optuna()
    other = CompsegError(
        f"rank_by={rank_by}: the study {settings.study_name} goes by another metric; "
        "give another hydra.sweeper.study_name or hydra.sweep.dir"
    )
    try:
        study: Study = optuna.create_study(
            study_name=settings.study_name,
            storage=_storage(settings.storage),
            sampler=sampler or optuna.samplers.RandomSampler(),
            pruner=instantiate(settings.pruner),
            direction="minimize" if lower_is_better(rank_by) else "maximize",
            load_if_exists=True,
        )
    except ValueError:  # it goes the other way
        raise other from None
    if study.user_attrs.get(RANK_BY, rank_by) != rank_by:
        raise other
    study.set_user_attr(RANK_BY, rank_by)
    return study


def load_study(settings: DictConfig) -> Study:
    """The study of a search that is under way, for one of its jobs."""
    optuna = import_optuna()
    study: Study = optuna.load_study(
        study_name=settings.study_name,
        storage=_storage(settings.storage),
        sampler=optuna.samplers.RandomSampler(),  # a job asks for no trials
        pruner=instantiate(settings.pruner),
    )
    return study


def trial_of_job(study: Study, sweep: Path, job: int) -> Trial | None:
    """The trial of a job of a sweep; None if the study does not wait for it."""
    for trial in reversed(study.get_trials(deepcopy=False)):
        attributes = trial.user_attrs
        if trial.state.name == "RUNNING" and (attributes.get(SWEEP), attributes.get(JOB)) == (str(sweep), job):
            return open_trial(study, trial)
    return None


def import_optuna() -> Any:
    """Optuna, without its lines about every trial and its database.

    Raises:
        CompsegError: If it is not installed.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        import optuna
    except ImportError:
        raise CompsegError("hydra/sweeper=search: optuna is not installed; pip install 'compseg[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


@functools.cache
def _storage(url: str) -> RDBStorage:
    """The database; opening it takes Optuna half a second.

    Raises:
        CompsegError: If it cannot be opened.
    """
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    options: dict[str, Any] = {}
    try:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": 60}}  # jobs that report their epochs wait for each other
        return RDBStorage(url, engine_kwargs=options)
    except (ImportError, OSError, ValueError, StorageInternalError, SQLAlchemyError) as error:
        raise CompsegError(
            f"hydra.sweeper.storage={url}: cannot be opened ({str(error).splitlines()[0]}); "
            "give sqlite:///FILE or the URL of a database server"
        ) from error
