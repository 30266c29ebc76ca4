"""A run whose maps are lost starts again from another seed, in the same folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from compseg.log import log
from compseg.monitor import CollapseDetector, Finding, write_findings
from compseg.run_folder import CHECKPOINTS


def seed_of(seed: int, restarts: int) -> int:
    """The seed after so many restarts.

    Far from those that one would give by hand, 0, 1, 2, as sweeps do, and none of `starts.seed_of_start`.
    """
    return int(np.random.SeedSequence((seed, restarts), spawn_key=(0,)).generate_state(1)[0]) if restarts else seed


def detector_of(trainer: pl.Trainer) -> CollapseDetector | None:
    """The trainer's detector, if it has one."""
    return next((found for found in trainer.callbacks if isinstance(found, CollapseDetector)), None)  # type: ignore[attr-defined]


def give_up(run: Path, findings: Sequence[Finding]) -> None:
    """Clear an attempt away: its history is kept beside that of the next.

    The word that there is a next one comes last: a run that is killed before that goes on with the attempt and gives
    it up again.

    Args:
        run: The run folder.
        findings: Of all attempts so far; the last one is why.
    """
    for name in ("last", "best"):
        (run / CHECKPOINTS / f"{name}.ckpt").unlink(missing_ok=True)
    restarts = sum(finding.restarted for finding in findings)
    (run / "history.csv").replace(run / f"history_before_restart_{restarts}.csv")
    write_findings(run, findings)
    log(f"restart {restarts}: training starts again from another seed")
