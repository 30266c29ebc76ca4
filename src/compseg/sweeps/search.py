"""A sweep that searches: an Optuna study asks for jobs, and is told what came of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from compseg.errors import CompsegError
from compseg.faults.lock import run_lock
from compseg.files import atomic_text
from compseg.sweeps.jobs import read_job
from compseg.sweeps.space import Space
from compseg.sweeps.study import SweepStudy, open_study

LOG = logging.getLogger("compseg")

PRUNING = "++callbacks.pruning._target_=compseg.sweeps.pruning.Pruning"


def search(config: DictConfig, loader: Any, launcher: Any, arguments: Sequence[str]) -> None:
    """Run trials until the study has as many as `hydra.sweeper.n_trials`.

    Args:
        config: The sweep's, Hydra's part included.
        loader: Hydra's, which knows the config groups.
        launcher: Runs the jobs; side by side if it can.
        arguments: Overrides of the command line, ranges included.

    Raises:
        CompsegError: If there is nothing to search or to go by, or another process works on the sweep.
    """
    settings, sweep = config.hydra.sweeper, Path(config.hydra.sweep.dir).absolute()
    if not config.evaluate:
        raise CompsegError("evaluation.split=none: a search goes by a figure of the evaluation; leave it out")
    space = Space(arguments, loader)
    sweep.mkdir(parents=True, exist_ok=True)
    with run_lock(sweep):
        trials = len(open_study(settings, config.rank_by).get_trials(deepcopy=False))
        # Not the seed alone: a search that is taken up would ask for its first trials again.
        sampler = instantiate(settings.strategy, _partial_=True)(seed=settings.seed + trials)
        study = SweepStudy(lambda: open_study(settings, config.rank_by, sampler), space, sweep, arguments)
        atomic_text(sweep / "multirun.yaml", OmegaConf.to_yaml(config))
        jobs = study.jobs(settings.n_trials)
        if not settings.pruner._target_.endswith("NopPruner"):
            jobs = ((number, [*overrides, PRUNING]) for number, overrides in jobs)
        for number, outcome in _run(launcher, jobs):
            job = read_job(folder_of(outcome))
            study.tell(number, job.status, outcome.return_value)


def folder_of(outcome: JobReturn) -> Path:
    """The folder of a job that has ended."""
    assert outcome.hydra_cfg is not None
    return Path(outcome.hydra_cfg.hydra.runtime.output_dir)


def _run(launcher: Any, jobs: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, JobReturn]]:
    if hasattr(launcher, "run"):
        yield from launcher.run(jobs)
    else:  # Hydra's own: one after the other
        for number, overrides in jobs:
            (outcome,) = launcher.launch([overrides], number)
            yield number, outcome
