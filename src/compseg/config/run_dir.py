"""One run folder for all processes of a run, whoever starts them."""

from __future__ import annotations

import itertools
import os
from datetime import datetime, timedelta

# Runs that this process has named: torchrun's store outlives them, and would give the second the name of the first.
_RUNS = itertools.count()
# What a shell on a cluster's node is called; what is typed there is no job of its own.
_SHELLS = ("bash", "interactive")


def started(pattern: str) -> str:
    """A name for the run that starts now, the same in all its processes.

    The time as a rule. The ranks that torchrun starts, on whichever machines, agree on the time of the first one. Under
    srun it is the number of job and step, which a job that is put back into the queue has again.

    Args:
        pattern: Of `strftime`.
    """
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in _SHELLS:
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    now = datetime.now().strftime(pattern)
    return _agreed(now) if "TORCHELASTIC_RUN_ID" in os.environ else now


def rank() -> int:
    """The rank of this process, if torchrun or srun has started it as one of several, else 0."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    return int(os.environ.get("SLURM_PROCID", "0"))


def quiet_rank(name: str) -> list[str]:
    """Overrides with which a rank other than 0 leaves no more in the run folder than a log of its own.

    Args:
        name: The verb.
    """
    return [f"hydra.job.name={name}_ddp_process_{rank()}", "hydra.output_subdir=null"] if rank() else []


def _agreed(word: str) -> str:
    """The first word that a rank has said, from the store that torchrun keeps for its ranks."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(minutes=5))
    agreed: str = store.compare_set(f"compseg/started/{next(_RUNS)}", "", word).decode()
    return agreed
