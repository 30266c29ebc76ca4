"""Where Hydra looks for launchers and sweepers of others: ours, which hand over to `compseg.studies`.

Hydra imports this file whenever any of its programs starts, so it has to stay light.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from compseg.studies.runner import Where


class LocalLauncher(Launcher):
    """Jobs side by side on this machine.

    Args:
        settings: See `conf/hydra/launcher/local.yaml`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over before the sweep."""
        del task_function  # a job is a command line
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs; the result of each, in their order."""
        ended = dict(self.run(enumerate(job_overrides, initial_job_idx)))
        return [ended[number] for number in sorted(ended)]

    def run(self, jobs: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, JobReturn]]:
        """Run numbered jobs, each taken when there is room for it; the result of each, as they end."""
        from compseg.studies.sweep import run_numbered

        return run_numbered(self.context.config_loader, self.config, jobs, self.where())

    def where(self) -> Where:
        """This machine.

        Raises:
            CompsegError: If `jobs` is no number of jobs.
        """
        from compseg.errors import CompsegError
        from compseg.studies.slots import Slots

        jobs = self.settings["jobs"]
        if jobs is not None and jobs < 1:
            raise CompsegError(f"hydra.launcher.jobs={jobs}: expected null or how many at once, at least 1")
        return Slots(jobs, self.config.trainer.accelerator)


class SlurmLauncher(LocalLauncher):
    """Jobs by way of SLURM.

    Args:
        settings: See `conf/hydra/launcher/slurm.yaml`.
    """

    def where(self) -> Where:
        """The cluster."""
        from compseg.studies.slurm import SlurmQueue

        return SlurmQueue(self.config.hydra.sweep.dir, **self.settings)


class OptunaSweeper(Sweeper):
    """An Optuna study whose trials are jobs.

    Args:
        settings: See `conf/hydra/sweeper/search.yaml`; read from the configuration when the search begins.
    """

    def __init__(self, **settings: Any) -> None:
        del settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over before the sweep, and get the launcher."""
        from hydra.core.plugins import Plugins

        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has as many as it should."""
        from compseg.studies.search import search

        assert self.config is not None
        assert self.launcher is not None
        search(self.config, self.context.config_loader, self.launcher, arguments)
