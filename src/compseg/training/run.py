"""The story of a training run, from its configuration to the extracted segmenter.

`train` resolves what was left to `auto` and makes one attempt after the other; `train_once` is one attempt, top to
bottom: seed, data, model, callbacks, trainer, fit. `attempts` decides what is attempted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from compseg.batches import CohortData
from compseg.cohort import refuse_fatal
from compseg.faults import StopSignals
from compseg.log import detail, log, quiet_libraries, rank
from compseg.monitor import Dashboards
from compseg.run_folder import load_checkpoint, record, remove_run
from compseg.training.attempts import Attempt, Outcome, advance, attempts, fallback_of, keep_best
from compseg.training.build import (
    build_comparison,
    build_module,
    build_trainer,
    detector_of,
    learns_from_masks,
    plain,
    require_best_and_last,
)
from compseg.training.extract import extract, map_maker
from compseg.training.fit import fit, fit_preprocessing, fit_pseudo_labels, fit_segmenter, found_nothing, speed_up
from compseg.training.module import CompSegNet
from compseg.training.resolve import PRIORS, Resolved, advice, resolve, resolve_by_pseudo_labels
from compseg.training.resume import refuse_another


def train(
    cfg: DictConfig, run: Path, signals: StopSignals | None = None, dashboards: Dashboards | None = None
) -> torch.device | None:
    """Train as configured and leave the extracted segmenter in the run folder.

    Args:
        cfg: `conf/train.yaml`, composed; it is not changed.
        run: The run folder.
        signals: Those that ask the run to stop; None: none are caught.
        dashboards: Where scalars and pictures go, beside the run folder; None: nowhere.

    Returns:
        The device that trained; None on every process but rank zero, which alone continues to evaluate.

    Raises:
        CompsegError: If the cohort, the configuration or the checkpoint to resume from is unusable.
    """
    quiet_libraries()
    dashboards, signals = dashboards or Dashboards(), signals or StopSignals(run)
    data = _prepared(cfg)
    resolved = resolve(cfg, data.cohort)
    if cfg.overwrite and cfg.trainer.resume is None and not rank():
        _make_room(run, resolved.cfg)
    plan, outcome, trained = attempts(resolved.cfg, run), None, []
    while (attempt := advance(plan, outcome)) is not None:
        # Curves of several inits are shown side by side, so each has dashboards of its own.
        several = attempt.init is not None and dashboards.loggers
        with Dashboards.of(cfg.logger, attempt.init) if several else nullcontext(dashboards) as shown:
            outcome = train_once(attempt, data, resolved, signals, shown)
        if outcome.trained and outcome.is_global_zero:
            trained.append(replace(attempt, cfg=outcome.cfg))
            # Built again: of a network that was trained in shares, this rank may hold one share alone.
            extract(build_module(outcome.cfg), outcome.cfg, data.cohort, attempt.folder)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # the ranks part here: rank zero evaluates alone
    if outcome is None or not outcome.is_global_zero:
        return None
    best = keep_best(trained, run)
    if best.folder != run:
        extract(build_module(best.cfg), best.cfg, data.cohort, run)  # again, because it names its run
        dashboards.describe(plain(best.cfg))
    return outcome.device


def _prepared(cfg: DictConfig) -> CohortData:
    """The data, of which a cohort was made or found that can be trained on."""
    data: CohortData = instantiate(cfg.data)
    data.prepare_data()
    refuse_fatal(data.cohort, cfg.evaluation.split)
    if hint := advice(cfg, data.cohort.channels):
        log(hint)
    return data


def _make_room(run: Path, cfg: DictConfig) -> None:
    """Remove an earlier run, unless what is to replace it cannot be trained."""
    build_module(cfg)
    learns_from_masks(cfg)
    remove_run(run)


def train_once(
    attempt: Attempt, data: CohortData, resolved: Resolved, signals: StopSignals, dashboards: Dashboards
) -> Outcome:
    """One attempt: build all that the seed has a part in, and train it unless the pseudo-labeller finds nothing.

    Args:
        attempt: Resolved configuration, folder, and what earlier attempts have found.
        data: Prepared.
        resolved: What was resolved, and what was asked for in its place, for `config.yaml`.
        signals: Those that ask the run to stop.
        dashboards: Where scalars and pictures go, beside the run folder.
    """
    cfg = attempt.cfg
    pl.seed_everything(cfg.seed, verbose=False)
    module = build_module(cfg)
    map_maker(module.segmenter, plain(cfg))  # built once here, so that what it lacks is said before training
    trainer = build_trainer(cfg, attempt.folder, dashboards, signals, attempt.findings, attempt.later)
    require_best_and_last(trainer)
    path = trainer.checkpoint_to_resume()
    refuse = partial(refuse_another, load_checkpoint(path) if path else None, path, cohort=data.cohort)
    refuse(plain(cfg), fallback=None if cfg.method.fallback is None else plain(fallback_of(cfg)))
    data.setup_for(trainer, seed=cfg.seed, with_truth=learns_from_masks(cfg))
    fit_preprocessing(module, data)
    fit_pseudo_labels(module, data)
    if found_nothing(module) and cfg.method.fallback is not None:
        return Outcome(cfg, trained=False, is_global_zero=trainer.is_global_zero)
    fit_segmenter(module, data)
    module.sees_whole_samples = data.crops is None
    cfg, asked = _resolve_by_pseudo_labels(module, cfg, resolved, refuse)
    # Not earlier: where the pseudo-labeller finds nothing, the attempt without it writes its own configuration.
    if trainer.is_global_zero:
        record(attempt.folder, plain(cfg), asked, data.cohort.fingerprint)
    dashboards.describe(plain(cfg))
    speed_up(module, trainer)
    fit(trainer, module, data, path, signals)
    return _outcome(cfg, trainer)


def _resolve_by_pseudo_labels(
    module: CompSegNet, cfg: DictConfig, resolved: Resolved, refuse: Callable[[dict[str, Any]], None]
) -> tuple[DictConfig, dict[str, Any]]:
    """Configuration with what the marks call for, by which the module compares then; and what was asked for."""
    measured = resolve_by_pseudo_labels(cfg, module.pseudo_labels)
    _say_choices(resolved, measured)
    if measured.choices:
        module.compare_by(*build_comparison(measured.cfg), config=plain(measured.cfg))
        for prior in (choice.value for choice in measured.choices if choice.key in PRIORS):
            module.start_at(prior)
        refuse(plain(measured.cfg))
    return measured.cfg, {**resolved.asked, **measured.asked}


def _outcome(cfg: DictConfig, trainer: pl.Trainer) -> Outcome:
    """How a training went that has ended."""
    detector = detector_of(trainer)
    return Outcome(
        cfg,
        trained=detector is None or not detector.restarting,
        is_global_zero=trainer.is_global_zero,
        device=trainer.strategy.root_device,
        findings=detector.findings if detector else [],
    )


def _say_choices(*parts: Resolved) -> None:
    """One line of what was chosen for `auto`; the reasons are for the log."""
    if chosen := [choice for part in parts for choice in part.short]:
        log(f"auto: {', '.join(chosen)} (why: train.log)")
    detail(f"auto: {', '.join(filter(None, (part.reasons for part in parts)))}")
