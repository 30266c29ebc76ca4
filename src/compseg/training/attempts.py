"""What a run attempts, one after the other: several seeds, restarts after a collapse, a fallback without pseudo-labels.

`attempts` is a generator that yields an `Attempt` and is sent its `Outcome`. It changes no configuration that it was
given: every attempt has its own.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from compseg.errors import CompsegError
from compseg.log import log
from compseg.monitor import Finding, read_findings, write_findings
from compseg.run_folder import BEST, CHECKPOINTS, LAST, best_metric, load_checkpoint
from compseg.training.fit import FOUND

INITS = "inits"


@dataclass(frozen=True)
class Attempt:
    """One training from one seed.

    Attributes:
        cfg: Its configuration, resolved.
        folder: Where it leaves its files: the run folder, or one of several below it.
        findings: Collapses that earlier attempts in this folder ended in.
        init: Its number, from 1, where there are several inits.
        later: How many of them are still to come.
    """

    cfg: DictConfig
    folder: Path
    findings: Sequence[Finding] = ()
    init: int | None = None
    later: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        cfg: The attempt's configuration, with what was resolved on the way.
        trained: Whether it was trained to its end.
        is_global_zero: Whether this process is rank zero.
        device: That trained; None where nothing was trained.
        findings: Collapses that were named so far; the last one may have ended the attempt.
    """

    cfg: DictConfig
    trained: bool
    is_global_zero: bool
    device: torch.device | None = None
    findings: Sequence[Finding] = field(default_factory=list)


Attempts = Generator[Attempt, Outcome, None]


def advance(plan: Attempts, outcome: Outcome | None) -> Attempt | None:
    """The next attempt, given what came of the one before; None when there is none left."""
    try:
        return next(plan) if outcome is None else plan.send(outcome)
    except StopIteration:
        return None


def attempts(cfg: DictConfig, run: Path, init: int | None = None, later: int = 0) -> Attempts:
    """Yield what to train, one attempt at a time; each is to be answered by its outcome.

    Args:
        cfg: The resolved configuration.
        run: The run folder, or that of one of several inits.
        init: The number of that init.
        later: How many inits come after it.

    Raises:
        CompsegError: `trainer.resume` names a checkpoint, and each of several inits has its own.
    """
    if cfg.n_init > 1:
        yield from _inits(cfg, run)
        return
    # A resumed run continues with the seed that its last restart led to.
    findings, seed = read_findings(run) if cfg.trainer.resume else [], cfg.seed
    while True:
        outcome = yield Attempt(_with(cfg, seed=seed_after(seed, findings)), run, findings, init, later)
        if outcome.trained:
            return
        if outcome.device is None:
            way = f"method={cfg.method.name} continues without pseudo-labels"
            keys = ", ".join(key for key, _ in _replaced("", cfg.method.fallback))
            log(f"below {FOUND:.2f}: {way}; method.fallback sets {keys}")
            yield from attempts(fallback_of(cfg), run, init, later)
            return
        findings = list(outcome.findings)
        # One rank clears, for all share the folder.
        if outcome.is_global_zero:
            clear_for_restart(run, findings)
        # What it could resume from was the attempt that is lost.
        cfg = _with(cfg, resume=None)


def _inits(cfg: DictConfig, run: Path) -> Attempts:
    if cfg.trainer.resume not in (None, "auto"):
        raise CompsegError(
            f"trainer.resume={cfg.trainer.resume}: each of {cfg.n_init} inits has a checkpoint of its own; "
            "give trainer.resume=auto with the run's folder, or n_init=1 and method.fallback.n_init=1"
        )
    for number in range(cfg.n_init):
        if cfg.trainer.resume and _has_lost(run, number + 1):
            continue
        part = _with(cfg, seed=seed_of_init(cfg.seed, number), n_init=1)
        log(f"init {number + 1} of {cfg.n_init}: seed {part.seed}")
        yield from attempts(part, run / INITS / str(number + 1), number + 1, cfg.n_init - number - 1)


def _has_lost(run: Path, number: int) -> bool:
    """Whether an init was trained and not kept: the run has a checkpoint then, and the init has none."""
    return (run / CHECKPOINTS / LAST).is_file() and not (run / INITS / str(number) / CHECKPOINTS).exists()


def _with(cfg: DictConfig, seed: int | None = None, n_init: int | None = None, **trainer: object) -> DictConfig:
    """A copy with other values; `n_init` is the fallback's as well."""
    cfg = copy.deepcopy(cfg)
    cfg.seed = cfg.seed if seed is None else seed
    if n_init is not None:
        cfg.n_init = n_init
        # The fallback of one init would else train several inits inside it.
        if cfg.method.fallback is not None:
            cfg.method.fallback.n_init = n_init
    for key, value in trainer.items():
        cfg.trainer[key] = value
    return cfg


def fallback_of(cfg: DictConfig) -> DictConfig:
    """The configuration with the method's fallback in place of what needs pseudo-labels."""
    cfg, fallback = copy.deepcopy(cfg), cfg.method.fallback
    for key, node in _replaced("", fallback):
        OmegaConf.update(cfg, key, node, merge=False, force_add=True)
    cfg.method.fallback = None
    return cfg


def _replaced(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Each value or whole object below a node, by dotted key.

    What merely groups them is merged, so that what was asked for stays beside.
    """
    if isinstance(node, DictConfig) and "_target_" not in node:
        for name, child in node.items():
            yield from _replaced(f"{key}.{name!s}".lstrip("."), child)
    else:
        yield key, node


def seed_after(seed: int, findings: Sequence[Finding]) -> int:
    """The seed after the restarts among the findings.

    Far from those that one would give by hand, 0, 1, 2, as sweeps do, and none of `seed_of_init`.
    """
    # The spawn key parts these seeds from those of `seed_of_init`, which hashes two numbers as well.
    # 32 bits are as many as `seed_everything` takes.
    restarts = sum(finding.restarted for finding in findings)
    return int(np.random.SeedSequence((seed, restarts), spawn_key=(0,)).generate_state(1)[0]) if restarts else seed


def seed_of_init(seed: int, number: int) -> int:
    """The first init, 0, has the seed that was given, the others one each that is far from those given by hand."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) if number else seed


def clear_for_restart(run: Path, findings: Sequence[Finding]) -> None:
    """Remove a lost attempt's checkpoints; its history is kept beside that of the next.

    The findings are written last: a run that is killed before that resumes the lost attempt and clears it again.
    """
    for name in (LAST, BEST):
        (run / CHECKPOINTS / name).unlink(missing_ok=True)
    restarts = sum(finding.restarted for finding in findings)
    (run / "history.csv").replace(run / f"history_before_restart_{restarts}.csv")
    write_findings(run, findings)
    log(f"restart {restarts}: training starts again from another seed")


def keep_best(trained: Sequence[Attempt], run: Path) -> Attempt:
    """Of several inits, make the files of the best the run's; a single attempt is in the run folder already.

    By the metric that best epochs are chosen by, as a rule the lowest `val/loss`, which knows labels alone. Of
    the others the checkpoints go, which are large: a run that is resumed goes on with the best alone.
    """
    if len(trained) == 1 and trained[0].folder == run:
        return trained[0]
    mode = OmegaConf.select(trained[0].cfg, "callbacks.best_and_last.mode", default="min")
    scores = {attempt.folder: best_metric(load_checkpoint(attempt.folder / CHECKPOINTS / BEST)) for attempt in trained}
    best = best_of(scores, mode)
    log(f"{_monitor(trained[0].cfg)} of the inits: {', '.join(map(_four, scores.values()))}; init {best.name} is kept")
    # Linked rather than copied, for checkpoints are large; files are replaced and never changed, so links do not mix.
    shutil.copytree(best, run, dirs_exist_ok=True, copy_function=_link_or_copy)
    for lost in scores.keys() - {best}:  # their histories stay
        shutil.rmtree(lost / CHECKPOINTS)
    return next(attempt for attempt in trained if attempt.folder == best)


def best_of(scores: Mapping[Path, float], mode: str) -> Path:
    """The folder of the lowest score, or the highest where `mode` is `max`; one without a number comes last."""
    sign = -1 if mode == "max" else 1
    # NaN compares as false with any number, so that `min` by the score alone could return it.
    return min(scores, key=lambda folder: (math.isnan(scores[folder]), sign * scores[folder]))


def _monitor(cfg: DictConfig) -> str:
    return str(OmegaConf.select(cfg, "callbacks.best_and_last.monitor", default="best metric"))


def _four(score: float) -> str:
    return f"{score:.4f}"


def _link_or_copy(source: str, target: str) -> None:
    # `os.link` replaces nothing, and a run that is resumed may find the files of before.
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
