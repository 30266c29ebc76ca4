"""Jobs of a sweep side by side: on this machine or wherever else there is room for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from compseg.errors import CompsegError
from compseg.sweeps.attempt import Attempt
from compseg.sweeps.jobs import read_job
from compseg.sweeps.launch import JobSpec, job_spec
from compseg.sweeps.machine import Machine, Share
from compseg.sweeps.side_by_side import Running, side_by_side

LOG = logging.getLogger("compseg")


class Room(Protocol):
    """Where jobs run."""

    def has_room(self) -> bool:
        """Whether a job may start now."""

    def start(self, job: JobSpec) -> Running | None:
        """Start one; None if there is too little room for it yet."""


class LocalRoom:
    """This machine; `Machine` says by which rule jobs share it.

    Args:
        accelerator: `trainer.accelerator`.
        jobs: At most so many at once; None: as many as fit.
    """

    def __init__(self, accelerator: str, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise CompsegError(f"hydra.launcher.jobs={jobs}: expected null or how many at once, at least 1")
        self.machine = Machine(jobs, accelerator)
        self.has_room = self.machine.has_room

    def start(self, job: JobSpec) -> Running | None:
        """Start a job in its share of the machine."""
        share = self.machine.take(job.devices)
        return None if share is None else _Sharing(job.attempt(share.environment, quiet=True), share)


class _Sharing:
    """An attempt that gives its share of the machine back."""

    def __init__(self, attempt: Attempt, share: Share) -> None:
        self.attempt, self.share, self.stop = attempt, share, attempt.stop

    def ended(self) -> bool:
        if not self.attempt.ended():
            return False
        self.share.give_back()
        return True


class _Numbered:
    """A job under way, or one that had been finished before: then there is nothing to wait for."""

    def __init__(self, number: int, hydra: DictConfig, job: JobSpec, running: Running | None) -> None:
        self.number, self.hydra, self.job, self.running = number, hydra, job, running

    def ended(self) -> bool:
        return self.running is None or self.running.ended()

    def stop(self, *, at_once: bool = False) -> None:
        if self.running is not None:
            self.running.stop(at_once=at_once)

    def result(self) -> JobReturn:
        """What a sweeper wants to know."""
        done = JobReturn(overrides=self.job.overrides, hydra_cfg=self.hydra, status=JobStatus.COMPLETED)
        done.return_value = self.job.figure()
        return done


def run_numbered(
    loader: Any, config: DictConfig, jobs: Iterable[tuple[int, Sequence[str]]], room: Room
) -> Iterator[tuple[int, JobReturn]]:
    """Run jobs, each taken only when there is room for it.

    Args:
        loader: Hydra's, which composes.
        config: The sweep's, Hydra's part included.
        jobs: Their numbers and overrides.
        room: Where they run.

    Yields:
        Number and outcome, in the order in which they end.
    """
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    composed: dict[int, tuple[DictConfig, JobSpec]] = {}

    def start(numbered: tuple[int, Sequence[str]]) -> _Numbered | None:
        number, overrides = numbered
        if number not in composed:
            composed[number] = _compose(loader, config, number, overrides)
        hydra, job = composed[number]
        if job.finished():
            LOG.info("%s: finished already", job.folder)
            return _Numbered(number, hydra, job, None)
        running = room.start(job)
        if running is None:
            return None
        own = [item for item in overrides if item not in config.hydra.overrides.task]
        LOG.info("%s: started (%s)", job.folder, " ".join(own))
        return _Numbered(number, hydra, job, running)

    for ended in side_by_side(jobs, room.has_room, start):
        if ended.running is not None:
            _say_how_it_went(ended.job)
        yield ended.number, ended.result()


def _compose(loader: Any, config: DictConfig, number: int, overrides: Sequence[str]) -> tuple[DictConfig, JobSpec]:
    """Hydra's part of a job's configuration, and the job."""
    cfg = loader.load_sweep_config(config, list(overrides))
    with open_dict(cfg):
        cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)  # `${hydra:...}` is answered from there
    try:
        folder = os.path.join(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)  # noqa: PTH118 (of texts)
        with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = os.path.abspath(folder)  # noqa: PTH100
        return OmegaConf.masked_copy(cfg, "hydra"), job_spec(cfg.hydra, cfg)
    finally:
        HydraConfig.instance().cfg = before


def _say_how_it_went(job: JobSpec) -> None:
    done = read_job(job.folder)
    why = f": {done.why}" if done.why else ""
    LOG.info("%s: %s%s", job.folder, done.status, why)
