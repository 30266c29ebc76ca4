"""What Hydra calls when a sweep begins and ends."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from compseg.errors import CompsegError
from compseg.sweeps.jobs import DONE, Job, swept_keys
from compseg.sweeps.summary import summarise

LOG = logging.getLogger("compseg")


class SweepCallback(Callback):
    """Sums a sweep up at its end; the process ends with exit code 1 if a job has failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Let a sweep that is told to end (`kill`, a queue's time limit) end its job too."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write table and picture."""
        # Hydra turns an exception that leaves a callback into a warning, and the exit code into 0.
        try:
            sweep = Path(config.hydra.sweep.dir)
            jobs = summarise(sweep, config.rank_by)
        except CompsegError as error:
            sys.exit(f"compseg train: {error}")
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        LOG.info("sweep: %s", sweep / "sweep.md")
        if any(job.status not in DONE for job in jobs):
            sys.exit(f"compseg train: {complaint(sweep, jobs)}")


def complaint(sweep: Path, jobs: Sequence[Job]) -> str:
    """One line: which jobs are not finished, why, and how to try them again."""
    keys = swept_keys(jobs)
    bad = [job for job in jobs if job.status not in DONE]
    words = [
        f"{job.name} ({' '.join(f'{key}={job.overrides.get(key)}' for key in keys)}): {job.why or job.status}"
        for job in bad
    ]
    mend = f"the same command with hydra.sweep.dir={sweep} tries them again"
    return f"{len(bad)} of {len(jobs)} jobs not finished: {'; '.join(words)}; {mend}"
