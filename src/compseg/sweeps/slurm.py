"""Jobs of a sweep by way of SLURM, with submitit: a SLURM job each, put back into the queue when its time is up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from compseg.errors import CompsegError
from compseg.sweeps.jobs import DONE, read_job, recorded_overrides, write_record
from compseg.sweeps.launch import JobSpec
from compseg.sweeps.side_by_side import Running, side_by_side

if TYPE_CHECKING:
    from submitit import Job
    from submitit.helpers import DelayedSubmission


class SlurmRoom:
    """The cluster.

    Args:
        sweep: The sweep's folder; what SLURM's jobs print goes to `.slurm` inside.
        cluster: `slurm`, or `local`, which runs the same on this machine.
        jobs: At most so many in the queue and running at once; null: all.
        restarts: How often a job may run into its time limit and go on.
        parameters: As `submitit.AutoExecutor.update_parameters` takes them.
    """

    def __init__(
        self, sweep: str, cluster: str, jobs: int | None, restarts: int, parameters: DictConfig | dict[str, Any]
    ) -> None:
        self.jobs, self.running = jobs, 0
        self.executor = make_executor(Path(sweep).absolute() / ".slurm", cluster, restarts, parameters)

    def has_room(self) -> bool:
        """Whether another job may be put into the queue."""
        return self.jobs is None or self.running < self.jobs

    def start(self, job: JobSpec) -> Running:
        """Put a job into the queue."""
        write_record(job.folder, job.overrides, "started", "in the queue")
        self.running += 1
        return _Queued(self, job, self.executor.submit(SlurmJob(job)))


def make_executor(folder: Path, cluster: str, restarts: int, parameters: DictConfig | dict[str, Any]) -> Any:
    """Submitit's executor.

    Raises:
        CompsegError: If submitit is not installed, there is no SLURM, or a parameter is unknown to it.
    """
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise CompsegError("hydra/launcher=slurm: submitit is not installed; pip install 'compseg[slurm]'") from None
    plain = OmegaConf.to_container(OmegaConf.create(parameters), resolve=True)
    assert isinstance(plain, dict)
    try:
        executor = AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": restarts})
        executor.update_parameters(**{str(name): value for name, value in plain.items() if value is not None})
    except (RuntimeError, NameError, ValueError, TypeError) as error:
        raise CompsegError(f"hydra/launcher=slurm: {str(error).splitlines()[0]}") from error
    return executor


class SlurmJob:
    """What runs on the node, once a restart.

    Args:
        job: What there is to do.
    """

    def __init__(self, job: JobSpec) -> None:
        self.job = job

    def __call__(self) -> None:
        """Run the job, or go on with it, and write down how it went."""
        list(side_by_side([self.job], lambda: True, JobSpec.attempt, pause=0.5))

    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts back into the queue: the same, which goes on from `last.ckpt`."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Queued:
    """A job in the queue or on a node, as the sweep's own process sees it."""

    def __init__(self, room: SlurmRoom, job: JobSpec, submitted: Job[None]) -> None:
        self.room, self.job, self.submitted, self.over = room, job, submitted, False

    def ended(self) -> bool:
        if not self.over and self.submitted.done():
            self.over = True
            self.room.running -= 1
            self._write_down()
        return self.over

    def stop(self, *, at_once: bool = False) -> None:
        del at_once
        self.submitted.cancel(check=False)

    def _write_down(self) -> None:
        """What the node could not, if it failed, or SLURM ended the job."""
        if recorded_overrides(self.job.folder) and read_job(self.job.folder).status in (*DONE, "failed"):
            return
        error = self.submitted.exception()
        why = str(error).strip().splitlines()[-1] if error and str(error).strip() else "ended by SLURM"
        write_record(self.job.folder, self.job.overrides, "failed", why)
