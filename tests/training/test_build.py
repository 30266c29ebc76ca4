"""A trainer holds all of its callbacks in one order, and one that could leave no run is refused before training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from compseg.config import compose
from compseg.errors import CompsegError
from compseg.faults import StopSignals
from compseg.monitor import Dashboards, EpochBar
from compseg.training import BestAndLast
from compseg.training.build import build_trainer, learns_from_masks, require_best_and_last
from running import run_verb, tiny

PLAIN = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.compile=null", "hydra.run.dir=unused"]
EXPERIMENTS = sorted(path.stem for path in Path("conf/experiment").glob("*.yaml"))
OWN = "{_target_: pytorch_lightning.callbacks.ModelCheckpoint, monitor: val/loss}"


def trainer_of(run, *overrides):
    cfg = compose("train", [*PLAIN, "trainer.memory_format=channels_last", *overrides])
    return build_trainer(cfg, run, Dashboards(), StopSignals(run))


def test_what_ends_a_run_is_called_after_all_that_save(tmp_path):
    """So that a checkpoint of a stopped run holds what the others made of its last step."""
    names = [type(each).__name__ for each in trainer_of(tmp_path, f"+callbacks.mine={OWN}").callbacks]
    assert names[-2:] == ["SyncBatchNormStatistics", "StopBetweenSteps"]
    assert names.index("Diagnostics") < names.index("CollapseDetector")
    assert names.index("History") < names.index("BestAndLast") < names.index("ModelCheckpoint")


@pytest.mark.parametrize("waiting", [("stderr", "stdout"), ("stderr",), ("stdout",), ()], ids=str)
def test_a_bar_shows_how_far_an_epoch_is_where_somebody_waits(monkeypatch, tmp_path, waiting):
    """A job of a sweep has a terminal at stdout alone: the sweep reads its stderr."""
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda found=name in waiting: found, raising=False)
    assert any(isinstance(each, EpochBar) for each in trainer_of(tmp_path).callbacks) == bool(waiting)


def test_a_checkpoint_of_ones_own_may_stand_beside_ours(tmp_path):
    trainer = trainer_of(tmp_path, f"+callbacks.mine={OWN}")
    require_best_and_last(trainer)
    kinds = [type(each) for each in trainer.checkpoint_callbacks]
    assert BestAndLast in kinds
    assert ModelCheckpoint in kinds


@pytest.mark.parametrize("more", [(), (f"+callbacks.mine={OWN}",)], ids=["none", "one of the user's"])
def test_a_run_without_ours_is_refused_before_training(trained, tmp_path, more):
    run = tmp_path / "run"
    arguments = [item for item in tiny(trained.cohort, run) if not item.startswith("callbacks.")]
    done = run_verb("train", *arguments, "~callbacks.best_and_last", *more)
    assert done.returncode == 1
    assert "callbacks.best_and_last), got 0; keep it" in done.stderr
    assert not (run / "history.csv").exists()


@pytest.mark.parametrize(
    ("overrides", "masks"),
    [
        ([], False),
        (["method=supervised"], True),
        (["method=supervised", "pseudo_labels=none"], True),
        (["method=neuron", "pseudo_labels=none"], False),
    ],
)
def test_only_a_method_that_says_so_reads_an_experts_masks(overrides, masks):
    assert learns(*overrides) is masks


def test_a_method_of_labels_reads_no_masks_by_accident():
    with pytest.raises(CompsegError, match=r"^method=compseg: .* no pseudo-labeller marks any; .*method=neuron"):
        learns("pseudo_labels=none")


@pytest.mark.parametrize("replaced", ["objective=bce", "pseudo_labels.supervises=true"])
def test_an_upper_bound_that_reads_no_masks_is_refused(replaced):
    with pytest.raises(CompsegError, match=r"^method=supervised: is to learn from an expert's masks"):
        learns("method=supervised", replaced)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_bound_laid_beside_an_experiment_is_one(experiment):
    cfg = compose("train", [*PLAIN, "channels=4", f"experiment={experiment}", "method=supervised"])
    assert learns_from_masks(cfg)


def learns(*overrides):
    cfg = compose("train", [*PLAIN, "channels=4", "preprocess=none", "model.width=4", "model.depth=1", *overrides])
    return learns_from_masks(cfg)
