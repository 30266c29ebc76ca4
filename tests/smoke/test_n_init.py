"""A run from several seeds: the init that tells held-out labels best becomes the run, also after a kill in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from compseg.training import BestAndLast
from compseg.training.attempts import INITS, best_of, seed_of_init
from running import Killed, history_of, run_verb, succeed, tiny, train_here

OPTIONS = ("n_init=3", "evaluation.split=none", "trainer.max_epochs=3", "callbacks.pictures.every=0")


def losses(run):
    return [row["val/loss"] for row in history_of(run)]


def weights(run):
    stored = load_file(run / "segmenter" / "weights.safetensors")
    return {name.removeprefix("model."): values for name, values in stored.items() if name.startswith("model.")}


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    run = tmp_path_factory.mktemp("inits") / "run"
    return run, succeed("train", *tiny(trained.cohort, run, *OPTIONS))


@pytest.mark.slow
def test_the_init_of_lowest_loss_becomes_the_run(whole):
    run, printed = whole
    inits = [run / INITS / name for name in "123"]
    best = min(inits, key=lambda init: min(losses(init)))
    assert f"init {best.name} is kept" in printed
    assert len({min(losses(init)) for init in inits}) == 3
    assert losses(run) == losses(best)
    for name, values in weights(best).items():
        assert torch.equal(weights(run)[name], values)
    seed = seed_of_init(0, int(best.name) - 1)
    assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == seed
    provenance = json.loads((run / "segmenter" / "segmenter.json").read_text())["provenance"]
    assert (provenance["run"], provenance["seed"]) == (run.name, seed)
    assert provenance["val_loss"] == pytest.approx(min(losses(run)), rel=1e-4)


@pytest.mark.slow
def test_checkpoints_of_the_best_init_lie_on_the_disk_once(whole):
    run, _ = whole
    best = min((run / INITS / name for name in "123"), key=lambda init: min(losses(init)))
    for name in ("best.ckpt", "last.ckpt"):
        assert (run / "checkpoints" / name).samefile(best / "checkpoints" / name)


@pytest.mark.slow
def test_inits_that_lost_keep_their_history_alone_and_are_not_trained_again(trained, whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    best = min((run / INITS / name for name in "123"), key=lambda init: min(losses(init)))
    lost = [run / INITS / name for name in "123" if name != best.name]
    assert not any((init / "checkpoints").exists() for init in lost)
    before = {init: (init / "history.csv").read_bytes() for init in lost}
    train_here(run, tiny(trained.cohort, run, *OPTIONS, "trainer.resume=auto", "trainer.max_epochs=4"))
    assert {init: (init / "history.csv").read_bytes() for init in lost} == before
    assert len(losses(run)) == len(losses(best)) == 4


@pytest.mark.slow
def test_the_first_init_is_the_run_without_others(trained, whole, tmp_path):
    succeed("train", *tiny(trained.cohort, tmp_path, *OPTIONS, "n_init=1"))
    assert losses(tmp_path) == losses(whole[0] / INITS / "1")


def test_the_best_init_is_the_lowest_or_the_highest_and_never_one_without_a_number():
    scores = {Path("a"): 0.5, Path("b"): float("nan"), Path("c"): 0.4}
    assert best_of(scores, "min") == Path("c")
    assert best_of(scores, "max") == Path("a")
    assert best_of(dict.fromkeys(scores, float("nan")), "min") == Path("a")


@pytest.mark.slow
def test_a_run_killed_in_a_later_init_resumes_there(trained, whole, tmp_path, monkeypatch):
    arguments = tiny(trained.cohort, tmp_path, *OPTIONS, "trainer.enable_progress_bar=false")
    save = BestAndLast.on_train_epoch_end

    def killed_in_the_second(self, trainer, pl_module):
        save(self, trainer, pl_module)
        if trainer.default_root_dir.endswith("2") and trainer.current_epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(BestAndLast, "on_train_epoch_end", killed_in_the_second)
        with pytest.raises(Killed):
            train_here(tmp_path, arguments)
    assert len(history_of(tmp_path / INITS / "2")) == 2
    first = (tmp_path / INITS / "1" / "history.csv").read_bytes()
    train_here(tmp_path, [*arguments, "trainer.resume=auto"])
    for name in "123":
        assert losses(tmp_path / INITS / name) == losses(whole[0] / INITS / name)
    assert (tmp_path / INITS / "1" / "history.csv").read_bytes() == first  # with the seconds that its epochs took
    assert losses(tmp_path) == losses(whole[0])


def test_a_checkpoint_is_no_place_to_go_on_from(trained, tmp_path):
    done = run_verb("train", *tiny(trained.cohort, tmp_path, *OPTIONS, f"trainer.resume={trained.run}"))
    assert done.returncode == 1
    assert "each of 3 inits has a checkpoint of its own" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ranks_go_from_init_to_init_together(trained, tmp_path):
    two = ("n_init=2", "trainer.devices=2", "data.batch_size=4", "trainer.max_epochs=1")
    printed = succeed("train", *tiny(trained.cohort, tmp_path, *OPTIONS, *two))
    assert printed.count("is kept") == 1
    assert losses(tmp_path) in [losses(tmp_path / INITS / name) for name in "12"]
