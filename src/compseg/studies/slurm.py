"""Jobs by way of SLURM, with submitit: a SLURM job each, put back into the queue when its time is up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from compseg.errors import CompsegError
from compseg.studies.record import DONE, read_record, write_record
from compseg.studies.runner import Foreground, Job, Running, run_jobs

if TYPE_CHECKING:
    from submitit import Job as Submitted
    from submitit.helpers import DelayedSubmission


class SlurmQueue:
    """The cluster, with the settings of `conf/hydra/launcher/slurm.yaml`; what its jobs print goes to `.slurm`."""

    def __init__(
        self, study: str, cluster: str, jobs: int | None, restarts: int, parameters: DictConfig | dict[str, Any]
    ) -> None:
        self.jobs, self.running = jobs, 0
        self.executor = make_executor(Path(study).absolute() / ".slurm", cluster, restarts, parameters)

    def has_room(self) -> bool:
        """Whether another job may be put into the queue."""
        return self.jobs is None or self.running < self.jobs

    def start(self, job: Job) -> Running:
        """Put a job into the queue."""
        # Before it is submitted: the node may begin at once, and its own record would be overwritten.
        write_record(job.folder, job.overrides, "started", "in the queue")
        self.running += 1
        return QueuedJob(self, job, self.executor.submit(OnNode(job)))


def make_executor(folder: Path, cluster: str, restarts: int, parameters: DictConfig | dict[str, Any]) -> Any:
    """Submitit's executor.

    Raises:
        CompsegError: If submitit is not installed, there is no SLURM, or submitit does not know a parameter.
    """
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise CompsegError("hydra/launcher=slurm: submitit is not installed; pip install 'compseg[slurm]'") from None
    plain = OmegaConf.to_container(OmegaConf.create(parameters), resolve=True)
    assert isinstance(plain, dict)
    try:
        executor = AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": restarts})
        # Null leaves a parameter to SLURM.
        executor.update_parameters(**{str(name): value for name, value in plain.items() if value is not None})
    except (RuntimeError, NameError, ValueError, TypeError) as error:
        raise CompsegError(f"hydra/launcher=slurm: {str(error).splitlines()[0]}") from error
    return executor


class OnNode:
    """What runs on the node, once a restart."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> None:
        """Run the job, or continue it, and record how it ends."""
        list(run_jobs([self.job], Foreground(), pause=0.5))

    # submitit looks for a method of this name on what it was given; a plain function would be lost at the limit.
    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts back into the queue: the same, which continues from `last.ckpt`."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class QueuedJob:
    """A job in the queue or on a node, as the study's own process sees it."""

    def __init__(self, queue: SlurmQueue, job: Job, submitted: Submitted[None]) -> None:
        self.queue, self.job, self.submitted, self.over = queue, job, submitted, False

    def ended(self) -> bool:
        """Whether it has ended and its record says how."""
        if not self.over and self.submitted.done():
            self.over = True
            self.queue.running -= 1
            self._record_loss()
        return self.over

    def stop(self, *, at_once: bool = False) -> None:
        """Cancel it."""
        del at_once
        # Unchecked, because the job may have ended by now. SLURM itself kills what does not end.
        self.submitted.cancel(check=False)

    def _record_loss(self) -> None:
        """Write down what the node could not, if it failed or SLURM ended the job."""
        if read_record(self.job.folder).status in (*DONE, "failed"):
            return
        error = self.submitted.exception()
        # submitit's exception is a whole traceback, of which the last line says what happened.
        why = str(error).strip().splitlines()[-1] if error and str(error).strip() else "ended by SLURM"
        write_record(self.job.folder, self.job.overrides, "failed", why)
