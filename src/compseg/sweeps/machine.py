"""The rule by which jobs that run side by side share one machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence


class Machine:
    """GPUs, or cores where there are none, handed out to jobs.

    The rule: a job takes as many GPUs as it has devices, for itself alone; where there are no GPUs, or the jobs do not
    want them, it takes as many cores. It waits until so many are free. The cores are divided evenly among the processes
    that fit side by side, a process a device, unless `OMP_NUM_THREADS` says otherwise.

    Args:
        jobs: At most so many at once; None: as many as fit.
        accelerator: `trainer.accelerator` of the jobs; with `cpu` GPUs are left alone.
        gpus: As `CUDA_VISIBLE_DEVICES` would name them; None: those that this process sees.
        cores: Their number; None: those that this process may use.
    """

    def __init__(
        self,
        jobs: int | None = None,
        accelerator: str = "auto",
        gpus: Sequence[str] | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores = cores or usable_cores()
        self.gpus = list(visible_gpus() if gpus is None else gpus) if accelerator in ("auto", "gpu", "cuda") else []
        self.free = self.gpus or [f"core {i}" for i in range(self.cores)]
        self.units, self.jobs, self.running = len(self.free), jobs, 0

    def has_room(self) -> bool:
        """Whether a small job could start now."""
        return bool(self.free) and (self.jobs is None or self.running < self.jobs)

    def take(self, devices: int = 1) -> Share | None:
        """What a job with so many devices gets; None while it has to wait. More than the machine has is all it has."""
        need = min(max(devices, 1), self.units)
        if not self.has_room() or len(self.free) < need:
            return None
        taken, self.free = self.free[:need], self.free[need:]
        self.running += 1
        processes = min((self.jobs or self.units) * need, self.units)
        return Share(self, taken, max(1, self.cores // processes))


class Share:
    """What one job has of the machine until it is given back.

    Attributes:
        environment: Variables that keep the job inside its share.
    """

    def __init__(self, machine: Machine, taken: Sequence[str], threads: int) -> None:
        self.machine, self.taken = machine, list(taken)
        self.environment: dict[str, str] = {}
        if "OMP_NUM_THREADS" not in os.environ:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        if machine.gpus:
            self.environment["CUDA_VISIBLE_DEVICES"] = ",".join(taken)

    def give_back(self) -> None:
        """Let others have it."""
        self.machine.free += self.taken
        self.machine.running -= 1
        self.taken = []


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """GPUs that this process sees, by their names in `CUDA_VISIBLE_DEVICES`."""
    import torch  # late: nothing else in a sweep's own process needs it

    count = torch.cuda.device_count()
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(i) for i in range(count)])[:count]


def device_count(devices: object) -> int:
    """How many devices `trainer.devices` asks for: a number, a list of them, or `auto`, which is what is there: one."""
    if isinstance(devices, str):
        return int(devices) if devices.isdigit() else len([part for part in devices.split(",") if part.strip()])
    return max(devices, 1) if isinstance(devices, int) else len(devices) if isinstance(devices, Sequence) else 1
