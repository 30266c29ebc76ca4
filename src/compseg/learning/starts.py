"""A run from several seeds: each start is a run of its own, in a folder below, and one becomes the run."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from compseg.errors import CompsegError
from compseg.learning.restarts import seed_of

STARTS = "starts"


def starts_of(cfg: DictConfig, run: Path) -> dict[Path, DictConfig]:
    """The configuration of each start, by its folder.

    Raises:
        CompsegError: `trainer.resume` names a checkpoint, of which each start has its own.
    """
    if cfg.trainer.resume not in (None, "auto"):
        raise CompsegError(
            f"trainer.resume={cfg.trainer.resume}: each of {cfg.starts} starts has a checkpoint of its own; "
            "give trainer.resume=auto with the run's folder, or starts=1 and otherwise.starts=1"
        )
    return {run / STARTS / str(number + 1): _start(cfg, number) for number in range(cfg.starts)}


def _start(cfg: DictConfig, number: int) -> DictConfig:
    part = copy.deepcopy(cfg)
    part.starts, part.seed = 1, seed_of(cfg.seed, number)
    if part.otherwise is not None:
        part.otherwise.starts = 1
    return part


def best_of(figures: Mapping[Path, float], mode: str) -> Path:
    """The start of the lowest figure, or the highest where `mode` is `max`; one without a number comes last."""
    sign = -1 if mode == "max" else 1
    return min(figures, key=lambda start: (math.isnan(figures[start]), sign * figures[start]))


def keep(start: Path, run: Path) -> None:
    """Put all that a start has left into the run's folder."""
    shutil.copytree(start, run, dirs_exist_ok=True)
