"""The debug configurations run: one batch learned again and again, one step through every part, a table of times."""

from __future__ import annotations

import pytest

from compseg.batches.sampler import BalancedBatches
from running import history_of, succeed, tiny, train_here


def short(cohort, run, *more):
    """Without the epochs that tiny runs are given, for the debug configuration has its own."""
    return [item for item in tiny(cohort, run, *more) if not item.startswith("trainer.max_epochs")]


@pytest.mark.slow
def test_fast_dev_run_goes_through_every_part(trained, tmp_path):
    succeed("train", *short(trained.cohort, tmp_path / "run", "debug=fast_dev_run"))
    assert len(history_of(tmp_path / "run")) == 1
    assert (tmp_path / "run" / "segmenter" / "segmenter.json").is_file()
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
def test_profiler_leaves_its_table_in_the_run_folder(trained, tmp_path):
    succeed("train", *short(trained.cohort, tmp_path / "run", "debug=profiler"))
    assert "run_training_epoch" in (tmp_path / "run" / "fit-profile.txt").read_text()


def test_overfit_takes_the_same_batch_in_every_epoch(trained, tmp_path, monkeypatch):
    taken, batches = [], BalancedBatches.__iter__

    def noted(self):
        for batch in batches(self):
            taken.append(batch)
            yield batch

    monkeypatch.setattr(BalancedBatches, "__iter__", noted)
    tiny_run = tiny(trained.cohort, tmp_path, "debug=overfit", "trainer.max_epochs=3", "callbacks.pictures.every=0")
    train_here(tmp_path, [*tiny_run, "trainer.enable_progress_bar=false", "scheduler=constant", "data.cache=ram"])
    rows = history_of(tmp_path)
    assert len(rows) == 3
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    firsts = [taken[0], *[batch for batch in taken if batch == taken[0]]]
    assert len(firsts) > 3
