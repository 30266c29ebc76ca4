"""A job of a sweep runs as a process of its own, with the command line that would run it alone.

What a job leaves behind in a process (memory of the GPU, seeds, loggers) then cannot touch the next one, and a job that
is killed takes nothing along. It is also what makes several devices work: Lightning starts the other ranks with the
command line it finds, and that of a sweep would start the whole sweep again on each.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from compseg.errors import CompsegError
from compseg.sweeps.attempt import Attempt
from compseg.sweeps.jobs import figure_of, read_job, recorded_overrides
from compseg.sweeps.machine import device_count
from compseg.sweeps.side_by_side import side_by_side

LOG = logging.getLogger("compseg")


@dataclass(frozen=True)
class JobSpec:
    """What there is to do in one job, in plain values: it may travel to another machine.

    Attributes:
        folder: The run folder.
        overrides: What sets this job apart and what all share, as on the command line.
        command: The command line that runs it alone.
        cwd: Where to run it.
        rank_by: The figure that an optimiser goes by; None without evaluation.
        devices: How many processes it will be.
    """

    folder: Path
    overrides: tuple[str, ...]
    command: tuple[str, ...]
    cwd: str
    rank_by: str | None
    devices: int

    def attempt(self, environment: Mapping[str, str] | None = None, *, quiet: bool = False) -> Attempt:
        """Start it."""
        return Attempt(self.folder, self.overrides, self.command, self.cwd, environment, quiet=quiet)

    def finished(self) -> bool:
        """Whether nothing is left to do.

        Raises:
            CompsegError: If the folder holds a job with other values.
        """
        held = recorded_overrides(self.folder)
        if held is None:
            return False
        if sorted(held) != sorted(self.overrides):
            differing = sorted(set(held) - set(self.overrides)) or ["fewer values"]
            raise CompsegError(
                f"{self.folder}: holds another job ({' '.join(differing)}); repeat the sweep with the values it was "
                "started with, or give another hydra.sweep.dir"
            )
        job = read_job(self.folder)
        return job.status == "pruned" or (job.status == "finished" and (job.figures is not None or not self.rank_by))

    def figure(self) -> float | None:
        """The figure that an optimiser goes by: NaN where the job failed or was pruned, None without evaluation.

        Raises:
            CompsegError: If there is no such figure.
        """
        job = read_job(self.folder)
        if job.status != "finished":
            return float("nan")
        return figure_of(job, self.rank_by) if self.rank_by else None


def run_job(cfg: DictConfig) -> float | None:
    """Run the current job of a sweep unless it is finished already, and write down how it went.

    Training goes on from the last epoch of an earlier attempt, unless `trainer.resume` says otherwise.

    Args:
        cfg: `conf/train.yaml`, composed for this job; not yet checked, for a fault is the job's own.

    Returns:
        The figure `rank_by`, which an optimiser goes by; NaN if the job has failed, None without evaluation.

    Raises:
        CompsegError: If the folder holds a job with other values, or `rank_by` names no figure.
    """
    job = job_spec(HydraConfig.get(), cfg)
    if job.finished():
        LOG.info("%s: finished already", job.folder)
        return job.figure()
    list(side_by_side([job], lambda: True, JobSpec.attempt))
    return job.figure()


def job_spec(hydra: Any, cfg: DictConfig) -> JobSpec:
    """What is to be done in a job, from its composed configuration.

    Args:
        hydra: Hydra's own part of it, where the job's folder is decided.
        cfg: The rest.
    """
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    return JobSpec(
        folder=folder,
        overrides=tuple(overrides),
        command=tuple(command_of(hydra, folder, overrides)),
        cwd=str(hydra.runtime.cwd),
        rank_by=str(cfg.evaluation.rank_by) if cfg.evaluation.split != "none" else None,
        devices=device_count(cfg.trainer.devices),
    )


def command_of(hydra: Any, folder: Path, overrides: Sequence[str]) -> list[str]:
    """The command line that runs a job alone, in its folder of the sweep."""
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    resume = (
        [] if any(item.lstrip("+").startswith("trainer.resume=") for item in overrides) else ["trainer.resume=auto"]
    )
    return [
        *(sys.executable, "-m", "compseg.train", f"--config-name={hydra.job.config_name}"),
        *(f"--config-dir={path}" for path in sources),
        *hydra.overrides.hydra,
        *overrides,
        *resume,
        "hydra.mode=RUN",
        f"hydra.job.num={hydra.job.num}",
        f'hydra.sweep.dir="{os.path.abspath(hydra.sweep.dir)}"',  # noqa: PTH100 (of a text)
        f'hydra.run.dir="{folder}"',
    ]
