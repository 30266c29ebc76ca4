"""From configuration to objects: the CompSegNet, and the trainer with every callback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from compseg.comparative import ComparativeHead, Objective, Sum
from compseg.errors import CompsegError
from compseg.faults import StopSignals
from compseg.faults.watchdog import Watchdog
from compseg.log import terminal
from compseg.monitor import CollapseDetector, Dashboards, Diagnostics, EpochBar, Finding, History
from compseg.private import started_ranks
from compseg.training.callbacks import CohortWatch, SeedEachStep, StopBetweenSteps, SyncBatchNormStatistics
from compseg.training.checkpoints import BestAndLast
from compseg.training.module import CompSegNet, SchedulerFactory
from compseg.training.trainer import Trainer


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with interpolations resolved, as plain dicts, lists and numbers."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def build_module(cfg: DictConfig) -> CompSegNet:
    """Instantiate segmenter, head, objective, preprocessing, optimizer and schedule, and join them."""
    head, objective = build_comparison(cfg)
    return CompSegNet(
        segmenter=instantiate(cfg.model),
        head=head,
        objective=objective,
        preprocess=instantiate(cfg.preprocess),
        pseudo_labels=instantiate(cfg.pseudo_labels),
        optimizer=instantiate(cfg.optimizer),
        scheduler=_scheduler_factory(cfg.scheduler),
        augmentations=instantiate(cfg.augmentation),
        seed=cfg.seed,
        config=plain(cfg),
    )


def build_comparison(cfg: DictConfig) -> tuple[ComparativeHead, Objective]:
    """Instantiate head and objective, which two configurations may differ in alone."""
    return instantiate(cfg.head), build_objective(cfg)


def build_objective(cfg: DictConfig) -> Objective:
    """Instantiate the objective with its regularisers."""
    objective: Objective = instantiate(cfg.objective)
    return Sum({"objective": objective, **instantiate(cfg.regularisers)}) if cfg.regularisers else objective


def learns_from_masks(cfg: DictConfig) -> bool:
    """Whether an expert's masks are read in training, as an upper bound's are.

    Raises:
        CompsegError: They would be, by a method that learns from labels; or not, by one that is to learn from masks.
    """
    needed = build_objective(cfg).needs_truth and not (cfg.pseudo_labels and cfg.pseudo_labels.get("supervises", True))
    if needed and cfg.method.learns_from != "masks":
        raise CompsegError(
            f"method={cfg.method.name}: its objective learns pixels and no pseudo-labeller marks any; give "
            "pseudo_labels=fisher, method=neuron (labels alone), or method=supervised, which reads an expert's masks"
        )
    if cfg.method.learns_from == "masks" and not needed:
        raise CompsegError(
            f"method={cfg.method.name}: is to learn from an expert's masks, and what replaces its objective or "
            "pseudo_labels reads none, so it would be no upper bound; leave that out, or choose another method"
        )
    return needed


def _scheduler_factory(node: DictConfig | None) -> SchedulerFactory | None:
    if node is None:
        return None
    make: Callable[..., Any] = instantiate(node)
    # A one-cycle schedule must know its length, which only the trainer does; a step schedule takes no such argument.
    length_matters = "total_steps" in node

    def factory(
        optimizer: torch.optim.Optimizer, total_steps: int | None, **more: Any
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if length_matters and total_steps is None:
            raise CompsegError(
                f"scheduler={node['_target_'].rpartition('.')[2]}: needs the length of training, which has none; "
                "give trainer.max_epochs, or scheduler=constant"
            )
        more |= {"total_steps": total_steps} if length_matters else {}
        if "max_lr" in node:
            more["max_lr"] = [node.max_lr * group.get("rate", 1.0) for group in optimizer.param_groups]
        made: torch.optim.lr_scheduler.LRScheduler = make(optimizer, **more)
        return made

    return factory


def build_trainer(
    cfg: DictConfig,
    run: Path,
    dashboards: Dashboards,
    signals: StopSignals,
    findings: Sequence[Finding] = (),
    later: int = 0,
) -> Trainer:
    """The trainer of one attempt, with all of its callbacks.

    Args:
        cfg: The resolved configuration.
        run: Where the attempt leaves its files.
        dashboards: Whose loggers get what is logged.
        signals: Those that ask the run to stop.
        findings: Of earlier attempts in this folder.
        later: Trainings as long as this one that come after it.
    """
    history = History(str(run / "history.csv"), later)
    # In a log file a bar is noise; the history says there how long it will take.
    bars = [EpochBar(history)] if cfg.trainer.enable_progress_bar and terminal() else []
    watchdog = Watchdog(started_ranks, print_problem)
    trainer: Trainer = instantiate(
        cfg.trainer,
        callbacks=[*bars, *build_callbacks(cfg, history, signals, watchdog, findings)],
        logger=dashboards.loggers or False,
        default_root_dir=str(run),
        enable_progress_bar=False,  # Lightning's own
        _convert_="object",
    )
    return trainer


def build_callbacks(
    cfg: DictConfig, history: History, signals: StopSignals, watchdog: Watchdog, findings: Sequence[Finding]
) -> list[Callback]:
    """All callbacks of a run, in the order in which they are called; Lightning moves those that save to the end."""
    configured = list(instantiate(cfg.callbacks).values())
    for detector in (each for each in configured if isinstance(each, CollapseDetector)):
        detector.findings = list(findings)
    return [
        SeedEachStep(cfg.seed),
        CohortWatch(),  # before those that write what an epoch gave
        Diagnostics(),  # before those that read it
        # Before the checkpoint: a run killed between the two repeats an epoch; in the other order it would lose a row.
        history,
        *configured,
        # Last (`runs_last`), so that what the others make of a step is in the checkpoint that a stop writes.
        SyncBatchNormStatistics(),
        watchdog,
        StopBetweenSteps(signals, watchdog),
    ]


def require_best_and_last(trainer: pl.Trainer) -> None:
    """Refuse a trainer without the callback whose files extraction, resuming and evaluation read.

    Raised before training, because after it the hours would be lost.

    Raises:
        CompsegError: There is none, or more than one.
    """
    found = sum(isinstance(callback, BestAndLast) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if found != 1:
        raise CompsegError(
            f"callbacks: expected one compseg.training.BestAndLast (callbacks.best_and_last), got {found}; "
            "keep it, and add a ModelCheckpoint of your own under another name"
        )


def detector_of(trainer: pl.Trainer) -> CollapseDetector | None:
    """The trainer's collapse detector, if it has one."""
    return next((found for found in trainer.callbacks if isinstance(found, CollapseDetector)), None)  # type: ignore[attr-defined]


def print_problem(message: str) -> None:
    """Print the one line that a verb prints of an error; for threads, whose exceptions it would not see."""
    print(f"compseg train: {message}", file=sys.stderr, flush=True)
