"""A run from several seeds: each start is a run of its own, in a folder below, and one becomes the run."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from compseg.errors import CompsegError

STARTS = "starts"


def starts_of(cfg: DictConfig, run: Path) -> dict[Path, DictConfig]:
    """The configuration of each start, by its folder.

    Raises:
        CompsegError: `trainer.resume` names a checkpoint, of which each start has its own.
    """
    if cfg.trainer.resume not in (None, "auto"):
        raise CompsegError(
            f"trainer.resume={cfg.trainer.resume}: each of {cfg.n_init} starts has a checkpoint of its own; "
            "give trainer.resume=auto with the run's folder, or n_init=1 and fallback.n_init=1"
        )
    return {run / STARTS / str(number + 1): _start(cfg, number) for number in range(cfg.n_init)}


def _start(cfg: DictConfig, number: int) -> DictConfig:
    part = copy.deepcopy(cfg)
    part.n_init, part.seed = 1, seed_of_start(cfg.seed, number)
    if part.fallback is not None:
        part.fallback.n_init = 1
    return part


def seed_of_start(seed: int, number: int) -> int:
    """The first start, 0, has the seed that was given, the others one each that is far from those given by hand."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) if number else seed


def best_of(figures: Mapping[Path, float], mode: str) -> Path:
    """The start of the lowest figure, or the highest where `mode` is `max`; one without a number comes last."""
    sign = -1 if mode == "max" else 1
    return min(figures, key=lambda start: (math.isnan(figures[start]), sign * figures[start]))


def keep(start: Path, run: Path) -> None:
    """Put all that a start has left into the run's folder."""
    shutil.copytree(start, run, dirs_exist_ok=True)
