"""A job reports its epochs to the study and stops when it is poor beside the others."""

from types import SimpleNamespace

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from compseg.errors import CompsegError
from compseg.studies.pruning import Pruning
from compseg.studies.record import read_record, was_pruned
from compseg.studies.search import Space, SweepStudy, open_study

EPOCHS = 5


@pytest.fixture
def search(tmp_path, add_job, monkeypatch):
    """A search whose jobs are epochs of given metrics: runs one and tells how many epochs it had."""
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 1}
    storage = f"sqlite:///{tmp_path}/study.db"
    settings = {"storage": storage, "study_name": "s", "pruner": pruner, "prune_by": "val/loss"}

    class Search:
        rank_by = "val/loss"

        def __init__(self):
            self.settings = settings

        def begin(self):
            plain = OmegaConf.create(settings)
            arguments = ["seed=range(100)"]
            study = open_study(plain, self.rank_by)
            self.study = SweepStudy(study, Space(arguments), tmp_path / "sweep", arguments)
            self.jobs = self.study.jobs(100)

        def run(self, losses, name="val/loss", job=None):
            number = next(self.jobs)[0] if job is None else job
            folder = add_job(str(number), ["seed=1"], "started")
            hydra = {
                "sweeper": {**settings, "prune_by": name},
                "runtime": {"output_dir": str(folder)},
                "sweep": {"dir": str(tmp_path / "sweep")},
                "job": {"num": number},
            }
            monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(hydra))
            self.said = []
            trainer = SimpleNamespace(
                is_global_zero=True,
                max_epochs=EPOCHS,
                should_stop=False,
                strategy=SimpleNamespace(broadcast=lambda value: self.said.append(value) or value),
            )
            callback = Pruning()
            callback.on_fit_start(trainer, None)
            for epoch, loss in enumerate(losses):
                trainer.current_epoch, trainer.callback_metrics = epoch, {"val/loss": torch.tensor(loss)}
                callback.on_validation_end(trainer, None)
                if trainer.should_stop:
                    break
            status = "pruned" if was_pruned(folder) else "finished"
            self.study.tell(number, status, losses[-1])
            return epoch + 1, folder

    search = Search()
    search.begin()
    yield search
    HydraConfig.instance().cfg = None


def test_a_job_worse_than_the_median_stops_after_its_grace(search):
    assert search.run([0.5, 0.4, 0.3, 0.2, 0.1])[0] == EPOCHS
    epochs, folder = search.run([0.9, 0.8, 0.7, 0.6, 0.5])
    assert epochs == 2  # the first epoch is given in any case
    job = read_record(folder)
    assert (job.status, job.why) == ("pruned", "after epoch 1, val/loss 0.8")
    assert search.run([0.9, 0.3, 0.2, 0.1, 0.0])[0] == EPOCHS
    trials = search.study.study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert trials[1].value == pytest.approx(0.8)  # what the sampler places it by


def test_all_ranks_are_told_after_every_epoch(search):
    search.run([0.5, 0.4, 0.3, 0.2, 0.1])
    assert search.said == [False] * EPOCHS
    search.run([0.9, 0.8, 0.7, 0.6, 0.5])
    assert search.said == [False, True]


def test_a_loss_is_small_where_the_study_wants_large_metrics(search, tmp_path):
    search.settings["study_name"], search.rank_by = "another", "val/area_auc"
    search.begin()
    assert search.run([0.5, 0.4, 0.3, 0.2, 0.1])[0] == EPOCHS
    assert search.run([0.4, 0.3, 0.2, 0.1, 0.0])[0] == EPOCHS
    assert search.run([0.9, 0.8, 0.7, 0.6, 0.5])[0] == 2


def test_no_number_is_poor_and_the_last_epoch_is_not_pruned(search):
    assert search.run([0.5, 0.4, 0.3, 0.2, 0.1])[0] == EPOCHS
    assert search.run([0.5, float("nan"), 0.3])[0] == 2
    epochs, folder = search.run([0.1, 0.1, 0.1, 0.1, 0.9])
    assert (epochs, was_pruned(folder)) == (EPOCHS, False)


def test_an_epoch_that_is_repeated_after_a_restart_is_reported_once(search):
    search.run([0.5, 0.4, 0.3, 0.2, 0.1])
    number = next(search.jobs)[0]
    search.study.tell(number, "unfinished", None)
    search.study.running[number] = number
    search.run([0.45, 0.2, 0.1], job=number)
    assert search.study.study.trials[number].intermediate_values == pytest.approx({0: 0.45, 1: 0.2, 2: 0.1})


def test_a_metric_that_training_does_not_log(search):
    with pytest.raises(CompsegError, match=r"prune_by=val/dice: no such metric while training; metrics: val/loss"):
        search.run([0.5], name="val/dice")


def test_outside_of_a_search_nothing_is_pruned(monkeypatch):
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"sweeper": {"max_batch_size": None}}))
    callback, trainer = Pruning(), SimpleNamespace(should_stop=False)
    callback.on_fit_start(trainer, None)
    callback.on_validation_end(trainer, None)
    assert not trainer.should_stop
