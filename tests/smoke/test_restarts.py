"""A real collapse: it is named, the run starts again from another seed, and no kill in between changes the outcome."""

from __future__ import annotations

import json

import pytest
import yaml

from compseg.monitor import CollapseDetector, read_findings
from compseg.training import attempts
from running import Killed, history_of, succeed, tiny, train_here

# The printed recipe without a norm, in large steps: the maps are empty after the first of them, from any seed.
COLLAPSE = (
    "method=paper2020",
    "optimizer=rmsprop",
    "optimizer.lr=0.05",
    "scheduler=constant",
    "model.norm=none",
    "callbacks.collapse.restarts=1",
    "callbacks.pictures.every=0",
    "trainer.max_epochs=4",
    "evaluation.split=none",
)


def train(cohort, run, *more):
    train_here(run, tiny(cohort, run, *COLLAPSE, "trainer.enable_progress_bar=false", *more))


def numbers(run):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history_of(run)]


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    run = tmp_path_factory.mktemp("collapse") / "run"
    run.mkdir()
    train(trained.cohort, run)
    return run


@pytest.mark.slow
def test_a_collapse_is_named_and_the_run_starts_again(whole):
    first, second = read_findings(whole)
    assert (first.kind, first.since, first.epoch, first.seed, first.restarted) == ("empty", 0, 1, 0, True)
    assert (second.kind, second.seed, second.restarted) == ("empty", attempts.seed_after(0, [first]), False)
    assert "model.norm=group" in first.fix
    assert [row["epoch"] for row in history_of(whole)] == [0, 1, 2, 3]
    assert {row["collapse/restarts"] for row in history_of(whole)} == {1}
    assert len((whole / "history_before_restart_1.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.slow
def test_the_run_says_which_seed_was_kept(whole):
    kept = attempts.seed_after(0, read_findings(whole)[:1])
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert (config["seed"], config["data"]["seed"]) == (kept, kept)
    assert json.loads((whole / "segmenter/segmenter.json").read_text())["provenance"]["seed"] == kept


def die(*_, **__):
    raise Killed


@pytest.mark.slow
def test_a_run_killed_on_its_way_to_a_restart_ends_as_if_it_had_not_been(trained, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attempts, "clear_for_restart", die)
        with pytest.raises(Killed):
            train(trained.cohort, tmp_path)
    assert read_findings(tmp_path) == []
    train(trained.cohort, tmp_path, "trainer.resume=auto")
    assert numbers(tmp_path) == numbers(whole)
    assert read_findings(tmp_path) == read_findings(whole)


@pytest.mark.slow
def test_a_run_killed_after_a_restart_goes_on_with_that_attempt(trained, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        look = CollapseDetector.on_validation_epoch_end

        def killed_in_its_second_epoch(self, trainer, pl_module):
            if self.restarted and trainer.current_epoch == 1:
                die()
            look(self, trainer, pl_module)

        patch.setattr(CollapseDetector, "on_validation_epoch_end", killed_in_its_second_epoch)
        with pytest.raises(Killed):
            train(trained.cohort, tmp_path)
    assert len(history_of(tmp_path)) == 1
    train(trained.cohort, tmp_path, "trainer.resume=auto")
    assert numbers(tmp_path) == numbers(whole)
    assert read_findings(tmp_path) == read_findings(whole)


@pytest.mark.slow
def test_ranks_start_again_together(trained, tmp_path):
    run = tmp_path / "run"
    two = ("trainer.devices=2", "data.batch_size=4", "trainer.max_epochs=3")
    printed = succeed("train", *tiny(trained.cohort, run, *COLLAPSE, *two))
    assert printed.count("training starts again from another seed") == 1
    assert [finding.restarted for finding in read_findings(run)] == [True, False]
    assert [row["collapse/restarts"] for row in history_of(run)] == [1, 1, 1]
