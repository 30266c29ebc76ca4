"""An Optuna study whose trials are the jobs of a sweep, and that survives whoever runs it."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from compseg.errors import CompsegError
from compseg.sweeps.jobs import lower_is_better
from compseg.sweeps.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SWEEP, JOB, ARGUMENTS, RANK_BY = "sweep", "job", "arguments", "rank_by"


def open_study(settings: DictConfig, rank_by: str, sampler: Any = None) -> Study:
    """The study, made if there is none.

    Args:
        settings: `conf/hydra/sweeper/search.yaml`.
        rank_by: The figure that it goes by.
        sampler: Chooses the trials; only who asks for trials needs one.

    Raises:
        CompsegError: If Optuna is not installed, the storage cannot be opened, or the study goes by another figure.
    """
    optuna = import_optuna()
    other = CompsegError(
        f"rank_by={rank_by}: the study {settings.study_name} goes by another figure; "
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
    """The trial that a job of a sweep is; None if the study is not waiting for it."""
    from optuna import Trial

    for trial in reversed(study.get_trials(deepcopy=False)):
        attributes = trial.user_attrs
        if trial.state.name == "RUNNING" and (attributes.get(SWEEP), attributes.get(JOB)) == (str(sweep), job):
            return Trial(study, trial._trial_id)
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
    optuna.logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


@functools.cache
def _storage(url: str) -> Any:
    """The database; opening it takes Optuna half a second.

    Raises:
        CompsegError: If it cannot be opened.
    """
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError  # type: ignore[import-untyped]

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


class SweepStudy:
    """Which trials a sweep still has to run.

    A trial keeps the sweep's folder and the number of its job in its attributes. A job that fails is a trial that
    failed; when the sweep is started again, another trial with the same values runs it again in the same folder.

    Args:
        open_again: Opens the study.
        space: What is searched.
        sweep: The sweep's folder.
        arguments: Where the space comes from.

    Raises:
        CompsegError: If the study was begun with other arguments.
    """

    def __init__(self, open_again: Callable[[], Study], space: Space, sweep: Path, arguments: Sequence[str]) -> None:
        self.open_again, self.space, self.sweep = open_again, space, str(sweep.absolute())
        self.study = study = open_again()
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
                yield self._take_up(trial)
        for trial in last.values():
            if trial.state.name == "FAIL":
                yield self._ask(trial)
        while len(self._last_of_each_job(of_all=True)) < n_trials:
            yield self._ask()

    def tell(self, job: int, status: str, figure: float | None) -> None:
        """Write down what came of a job; one that was stopped stays running, and is taken up another time."""
        from optuna.trial import TrialState

        number = self.running.pop(job)
        # Optuna keeps the trials that it asked for in memory, without what their jobs have reported.
        self.study = self.open_again()
        if status in ("unfinished", "running"):
            return
        if status == "finished" and figure is not None and figure == figure:
            self.study.tell(number, figure)
        else:
            self.study.tell(number, state=TrialState.PRUNED if status == "pruned" else TrialState.FAIL)

    def _last_of_each_job(self, *, of_all: bool = False) -> dict[tuple[str, int], FrozenTrial]:
        """The latest trial of each job of this sweep, or of all sweeps and programs that work on the study."""
        last = {}
        for trial in self.study.get_trials(deepcopy=False):
            sweep = trial.user_attrs.get(SWEEP, "")
            begun = trial.state.is_finished() or sweep  # a running trial of nobody's died before it had a job
            if begun and (of_all or sweep == self.sweep):
                last[sweep, trial.user_attrs.get(JOB, trial.number)] = trial
        return last

    def _take_up(self, trial: FrozenTrial) -> tuple[int, list[str]]:
        job = int(trial.user_attrs[JOB])
        self.running[job] = trial.number
        return job, self.space.suggest(_Settled(trial.params))

    def _ask(self, again: FrozenTrial | None = None) -> tuple[int, list[str]]:
        """A new trial, or one with the values of a failed one."""
        if again is not None:
            self.study.enqueue_trial(again.params)
        trial: Trial = self.study.ask()
        overrides = self.space.suggest(trial)
        job = int(again.user_attrs[JOB]) if again is not None and trial.params == again.params else trial.number
        # Last, and the folder after the number: whatever has a folder is complete and may be taken up.
        trial.set_user_attr(JOB, job)
        trial.set_user_attr(SWEEP, self.sweep)
        self.running[job] = trial.number
        return job, overrides


class _Settled:
    """Suggests what was suggested before."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def suggest_int(self, name: str, *_: Any, **__: Any) -> int:
        return int(self.params[name])

    def suggest_float(self, name: str, *_: Any, **__: Any) -> float:
        return float(self.params[name])

    def suggest_categorical(self, name: str, *_: Any) -> str:
        return str(self.params[name])
