"""What may differ when a run is resumed, what must not, and how a schedule goes on where its length differs."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from compseg.cohort import Cohort
from compseg.config import compose
from compseg.errors import CompsegError
from compseg.run_folder import load_checkpoint
from compseg.training import BestAndLast
from compseg.training.build import plain
from compseg.training.resolve import resolve
from compseg.training.resume import refuse_another
from running import history_of, tiny, train_here

QUIET = ("evaluation.split=none", "trainer.enable_progress_bar=false")


@functools.cache
def composed(cohort, *more):
    arguments = [item for item in tiny(cohort, Path("unused"), *more) if not item.startswith("hydra.")]
    return resolve(compose("train", arguments), Cohort.open(cohort)).cfg


def asked(trained, *more):
    """A resolved configuration, from the arguments of the run that the checkpoint is of."""
    keys = [item.partition("=")[0] for item in more]
    base = composed(trained.cohort)
    if not all(OmegaConf.select(base, key) is not None and "." in key for key in keys):
        return plain(composed(trained.cohort, *more))
    cfg = copy.deepcopy(base)  # which takes no second to compose
    for item in more:
        key, _, value = item.partition("=")
        OmegaConf.update(cfg, key, yaml.safe_load(value))
    return plain(cfg)


def compared(trained, *more, **changes):
    """Compare the run's checkpoint, changed or not, with what is asked for."""
    path = trained.run / "checkpoints/last.ckpt"
    refuse_another(load_checkpoint(path) | changes, path, asked(trained, *more), Cohort.open(trained.cohort))


MAY_DIFFER = [
    (),
    ("trainer.max_epochs=3", "trainer.max_epochs=9"),
    ("trainer.devices=2", "trainer.strategy=ddp", "trainer.num_nodes=1"),
    ("trainer.precision=bf16-mixed", "trainer.compile=default", "trainer.memory_format=contiguous"),
    ("trainer=fsdp", "trainer.devices=2"),
    ("++logger.mine.version=1", "name=again"),
    ("data.cache=none", "data.workers=2"),
    ("evaluation.split=val", "evaluation.report=false", "evaluation.threshold=0.5"),
    ("callbacks.pictures.every=1", "callbacks.best_and_last.seconds=5", "callbacks.collapse.restarts=2"),
    ("+trainer.log_every_n_steps=7", "trainer.enable_progress_bar=false", "trainer.resume=auto"),
    ("+optimizer.fused=false",),
]


@pytest.mark.parametrize("more", MAY_DIFFER, ids=" ".join)
def test_what_may_differ(trained, more):
    compared(trained, *more)


MUST_NOT = {
    "optimizer.lr=0.5": r"optimizer\.lr=0\.5 \(it has 0\.002\), scheduler\.max_lr=0\.5 \(it has 0\.002\)",
    "optimizer.weight_decay=0": r"optimizer\.weight_decay=0 \(it has 0\.0001\)",
    "optimizer=rmsprop": r"optimizer\._target_=torch\.optim\.RMSprop \(it has torch\.optim\.AdamW\)",
    "scheduler=constant": r"scheduler\._target_=.*ConstantLR .*it has .*OneCycleLR\)",
    "model.width=4": r"model\.width=4 \(it has 8\)",
    "model=segnet": r"model\._target_=compseg\.models\.SegNet",
    "seed=7": r"seed=7 \(it has 0\)",
    "data.batch_size=4": r"data\.batch_size=4 \(it has 6\)",
    "data.crop=16": r"data\.crop=16 \(it has nothing\)",
    "data.held_out=A": r"data\.held_out=A \(it has nothing\)",
    "preprocess=none": r"preprocess\.corrections=nothing|preprocess",
    "augmentation=none": r"augmentation\.",
    "regulariser=total_variation": r"regularisers\.total_variation\..* \(it has nothing\)",
    "pseudo_labels=none": r"pseudo_labels\.",
    "method=mean": r"more; give what it has, or train in a new folder \(hydra\.run\.dir=\)",
    "head.alpha=0.2": r"head\.alpha=0\.2 \(it has ",
    "trainer.accumulate_grad_batches=2": r"trainer\.accumulate_grad_batches=2 \(it has 1\)",
    "trainer.gradient_clip_val=1": r"trainer\.gradient_clip_val=1 \(it has nothing\)",
    "+trainer.limit_train_batches=1": r"trainer\.limit_train_batches=1 \(it has nothing\)",
    "callbacks.best_and_last.mode=max": r"callbacks\.best_and_last\.mode=max \(it has min\)",
}


@pytest.mark.parametrize(("more", "said"), MUST_NOT.items(), ids=MUST_NOT)
def test_what_must_not_differ(trained, more, said):
    with pytest.raises(CompsegError, match=r"last\.ckpt: cannot be continued with .*" + said) as raised:
        compared(trained, more)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_fewer_epochs_than_are_done_and_another_cohort(trained):
    with pytest.raises(CompsegError, match=r"last\.ckpt: has 2 epochs, trainer\.max_epochs=1 asks for fewer; give at"):
        compared(trained, "trainer.max_epochs=1")
    with pytest.raises(CompsegError, match=r"last\.ckpt: is of another cohort than .*cohort\.zarr now holds"):
        compared(trained, cohort_fingerprint="0" * 64)


def test_checkpoints_of_earlier_versions_are_compared_in_what_they_say(trained):
    old = load_checkpoint(trained.run / "checkpoints/last.ckpt")
    del old["cohort_fingerprint"]
    refuse_another(old, Path("old.ckpt"), asked(trained), Cohort.open(trained.cohort))
    del old["config"]
    refuse_another(old, Path("old.ckpt"), asked(trained, "seed=7"), Cohort.open(trained.cohort))


def test_a_fallback_is_the_same_method_whichever_of_its_inits(trained):
    path, cohort, fallback = Path("last.ckpt"), Cohort.open(trained.cohort), asked(trained, "method=mean")
    of_an_init = {**fallback, "seed": 9, "data": {**fallback["data"], "seed": 9}}
    checkpoint = load_checkpoint(trained.run / "checkpoints/last.ckpt") | {"config": of_an_init}
    refuse_another(checkpoint, path, asked(trained), cohort, fallback)
    with pytest.raises(CompsegError, match=r"seed=0 \(it has 9\)"):
        refuse_another(checkpoint, path, fallback, cohort)
    with pytest.raises(CompsegError, match=r"model\.width=4 \(it has 8\)"):
        refuse_another(checkpoint, path, asked(trained), cohort, asked(trained, "method=mean", "model.width=4"))


def rates(run):
    return [row["learning_rate"] for row in history_of(run)]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 3)])
def test_a_one_cycle_schedule_goes_on_as_if_planned_for_the_new_length(trained, tmp_path, before, after):
    planned, resumed = tmp_path / "planned", tmp_path / "resumed"
    train_here(planned, tiny(trained.cohort, planned, f"trainer.max_epochs={after}", *QUIET))
    first = tiny(trained.cohort, resumed, f"trainer.max_epochs={before}", *QUIET)
    if before < after:
        train_here(resumed, first)
    else:
        stopped_after_epoch(1, resumed, first)
    done = len(rates(resumed))
    train_here(resumed, [*first, f"trainer.max_epochs={after}", "trainer.resume=auto"])
    assert len(rates(resumed)) == after
    assert rates(resumed)[done:] == pytest.approx(rates(planned)[done:], rel=1e-9)
    assert rates(resumed)[: done - 1] != pytest.approx(rates(planned)[: done - 1])
    step = torch.load(resumed / "checkpoints/last.ckpt", weights_only=True)["lr_schedulers"][0]
    assert step["last_epoch"] == step["total_steps"] == after * step["total_steps"] // after


def stopped_after_epoch(epoch, run, arguments):
    """A run that ends after the checkpoint of an epoch."""

    class Ended(BaseException):
        pass

    save = BestAndLast.on_train_epoch_end

    def hook(self, trainer, pl_module):
        save(self, trainer, pl_module)
        if trainer.current_epoch == epoch:
            raise Ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BestAndLast, "on_train_epoch_end", hook)
        with pytest.raises(Ended):
            train_here(run, arguments)


def test_a_schedule_on_other_devices_is_where_its_epochs_are():
    """Twice as many devices take half as many steps an epoch: 40 of 80 steps become 20 of 40."""
    from compseg.training.resume import replanned

    def make(optimizer, total_steps, last_epoch=-1):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps, last_epoch=last_epoch)

    def optimizer():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)

    def after(steps, total):
        schedule = make(optimizer(), total)
        for _ in range(steps):
            schedule.optimizer.step()
            schedule.step()
        return schedule

    half = replanned(after(40, 80), make, 40, 1.0)
    assert half.get_last_lr() == pytest.approx(after(20, 40).get_last_lr())
    longer = replanned(after(40, 80), make, 160, 0.5)
    assert (longer.last_epoch, longer.get_last_lr()) == (40, pytest.approx(after(40, 160).get_last_lr()))
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr() == pytest.approx(after(41, 160).get_last_lr())
    same = after(3, 10)
    assert replanned(same, make, 10, 1.0) is same


def test_a_refused_resume_changes_nothing(trained, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(CompsegError, match="cannot be continued with optimizer"):
        train_here(run, tiny(trained.cohort, run, "optimizer.lr=0.5", "trainer.resume=auto", *QUIET))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_cohort_that_is_replaced_under_a_running_training_ends_it(trained, tmp_path, monkeypatch):
    cohort, run = shutil.copytree(trained.cohort, tmp_path / "c.zarr"), tmp_path / "run"
    save = BestAndLast.on_train_epoch_end

    def replaced_after_the_first(self, trainer, pl_module):
        save(self, trainer, pl_module)
        root = json.loads((cohort / "zarr.json").read_text())
        root["attributes"]["compseg"]["samples"][0]["label"] ^= 1
        (cohort / "zarr.json").write_text(json.dumps(root))

    arguments = tiny(cohort, run, "data.source=null", *QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(BestAndLast, "on_train_epoch_end", replaced_after_the_first)
        with pytest.raises(CompsegError, match=r"c\.zarr: was replaced while it was in use.* trainer\.resume=auto"):
            train_here(run, arguments)
    # The second epoch, which may have learned from both, has left nothing.
    assert len(history_of(run)) == 1
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 0
    with pytest.raises(CompsegError, match="is of another cohort than"):
        train_here(run, [*arguments, "trainer.resume=auto"])
    shutil.rmtree(cohort)
    shutil.copytree(trained.cohort, cohort)
    train_here(run, [*arguments, "trainer.resume=auto"])
    assert len(history_of(run)) == 2
    assert OmegaConf.load(run / "config.yaml").cohort_fingerprint == Cohort.open(cohort).fingerprint
