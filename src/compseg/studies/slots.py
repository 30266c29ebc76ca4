"""The slots of one machine: by which rule jobs that run side by side share it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compseg.device import usable_cores
from compseg.studies.runner import Job, LocalJob

# What a process needs before it can run a verb; by name, because a room may not import the verbs above it.
# Forked with all this, a job takes .35 s of processor time until it opens its cohort, else 5.8 s
# (docs/how-to/compare.md).
PRELOAD = ["compseg.config", "compseg.training", "compseg.report", "compseg.models", "hydra.core.plugins"]


class Slots:
    """GPUs, or cores where there are none, that jobs on this machine share.

    The rule: a job takes as many GPUs as it has devices, for itself alone; where there are no GPUs, or the jobs do not
    want them, it takes as many cores. It waits until that many are free. The cores are divided evenly among the
    processes that fit side by side, one process a device, unless `OMP_NUM_THREADS` is set.

    Args:
        jobs: At most so many at once; None: as many as fit.
        accelerator: `trainer.accelerator` of the jobs; with `cpu` GPUs are left alone.
        fork: Fork jobs from a process that has imported everything.
        share_gpus: Whether several jobs share a GPU where there are more jobs than GPUs.
        gpus: As `CUDA_VISIBLE_DEVICES` would name them; None: those that this process sees.
        cores: Their number; None: those that this process may use.
    """

    def __init__(
        self,
        jobs: int | None = None,
        accelerator: str = "auto",
        *,
        fork: bool = False,
        share_gpus: bool = False,
        gpus: Sequence[str] | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores, self.fork = cores or usable_cores(), fork
        self.gpus = list(visible_gpus() if gpus is None else gpus) if accelerator in ("auto", "gpu", "cuda") else []
        if share_gpus and jobs and self.gpus:
            self.gpus = (self.gpus * jobs)[: max(jobs, len(self.gpus))]
        # Cores are only counted; no job is bound to one.
        self.free = self.gpus or [f"core {i}" for i in range(self.cores)]
        self.units, self.jobs, self.running = len(self.free), jobs, 0
        self.count = min(jobs or self.units, self.units)
        if fork:
            # Libraries read it when the process that all are forked from loads them: in a share it would come too late.
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, self.cores // self.count)))
            multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)

    def warm_up(self) -> None:
        """Wait until everything is imported, so that the first jobs take no longer than the others."""
        first = multiprocessing.get_context("forkserver").Process(target=int)
        first.start()
        first.join()

    def has_room(self) -> bool:
        """Whether a small job could start now."""
        return bool(self.free) and (self.jobs is None or self.running < self.jobs)

    def start(self, job: Job) -> LocalJob | None:
        """Start a job in its share of the machine."""
        share = self.take(job.devices)
        return None if share is None else LocalJob(job, share, fork=self.fork)

    def take(self, devices: int = 1) -> Share | None:
        """The share of a job with so many devices; None while it has to wait. Never more than the machine has."""
        # A job that asks for more than there is would wait for ever.
        need = min(max(devices, 1), self.units)
        if not self.has_room() or len(self.free) < need:
            return None
        taken, self.free = self.free[:need], self.free[need:]
        self.running += 1
        processes = min((self.jobs or self.units) * need, self.units)
        environment = {"OMP_NUM_THREADS": str(max(1, self.cores // processes))}
        # What the user has set has the last word.
        environment = {name: value for name, value in environment.items() if name not in os.environ}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        return Share(self, taken, environment)

    def __str__(self) -> str:
        threads = int(os.environ.get("OMP_NUM_THREADS", max(1, self.cores // self.count)))
        gpus = len(set(self.gpus))
        on = count_of(self.cores, "core") + (f", {count_of(gpus, 'GPU')}" if gpus else "")
        return f"{self.count} at once, {count_of(threads, 'thread')} each, on {on}"


@dataclass
class Share:
    """What a job has of the machine."""

    slots: Slots
    taken: list[str]  # its GPUs, or its cores
    environment: dict[str, str] = field(default_factory=dict)  # variables that keep the job inside its share

    def give_back(self) -> None:
        """Leave it to others."""
        self.slots.free += self.taken
        self.slots.running -= 1
        self.taken = []


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """GPUs that this process sees, by their names in `CUDA_VISIBLE_DEVICES`."""
    import torch  # late: nothing else in a sweep's own process needs it

    count = torch.cuda.device_count()
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    # By the user's names: where CUDA_VISIBLE_DEVICES is 2,3, a job that got 0 would compute on a GPU of others.
    return (named or [str(i) for i in range(count)])[:count]


def device_count(devices: object) -> int:
    """How many devices `trainer.devices` asks for: a number, a list of them, or `auto`, which is one."""
    if isinstance(devices, str):
        return int(devices) if devices.isdigit() else len([part for part in devices.split(",") if part.strip()])
    return max(devices, 1) if isinstance(devices, int) else len(devices) if isinstance(devices, Sequence) else 1


def count_of(number: int, what: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {what}{'s' * (number != 1)}"
