"""What a step may be made of: parts whose gradients add up, and half precision with the head in single."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compseg.config import compose
from compseg.training.build import build_module
from running import history_of, run_here, tiny

# Plain gradient descent; a network without batch statistics and dropout.
PLAIN = (
    "method=paper2020",
    "head.alpha=1",  # else the output of an untrained network is saturated, and a few steps lead nowhere
    "optimizer=rmsprop",
    "optimizer._target_=torch.optim.SGD",
    "optimizer.lr=0.5",
    "scheduler=constant",
    "model.norm=none",
    "trainer.max_epochs=1",
    "evaluation.split=none",
    "~callbacks.collapse",
)


def learned(cohort: Path, run: Path, *more: str) -> dict[str, torch.Tensor]:
    assert run_here("train", *tiny(cohort, run, *PLAIN, *more)) == 0
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(("loss", "same"), [("l1", True), ("rmse", False)])
def test_accumulated_batches_are_one_batch_for_a_mean_over_samples(trained, tmp_path, loss, same):
    """And not for a root of a mean, which is taken in each part: docs/how-to/machines.md says so."""
    loss = f"objective.loss={loss}"
    whole = learned(trained.cohort, tmp_path / "8", loss, "data.batch_size=8", "+trainer.limit_train_batches=6")
    parts = ("data.batch_size=4", "trainer.accumulate_grad_batches=2", "+trainer.limit_train_batches=12")
    difference = largest_difference(learned(trained.cohort, tmp_path / "4", loss, *parts), whole)
    assert difference < 1e-6 if same else difference > 1e-5


def test_bf16_is_for_the_network_and_not_for_what_reads_its_map():
    torch.manual_seed(0)
    module = build_module(
        compose(
            "train", [*PLAIN, "preprocess=none", "augmentation=none", "model.width=8", "model.depth=1", "channels=8"]
        )
    ).eval()
    batch = {
        "image": torch.randn(4, 8, 32, 32),
        "tissue": torch.ones(4, 1, 32, 32, dtype=torch.bool),
        "label": torch.tensor([0.0, 1.0, 0.0, 1.0]),
        "index": [0, 1, 2, 3],
    }
    dtypes = []
    module.segmenter.register_forward_hook(lambda *seen: dtypes.append(seen[-1].dtype))
    single, loss = module(batch["image"], batch["tissue"]), module.training_step(batch, 0)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half, half_loss = module(batch["image"], batch["tissue"]), module.training_step(batch, 1)["loss"]
    assert dtypes == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert {half.logits.dtype, half.activation.dtype, half.x.dtype, half.o.dtype, half_loss.dtype} == {torch.float32}
    torch.testing.assert_close(half.x, single.x, atol=2e-3, rtol=0)
    torch.testing.assert_close(half.o, single.o, atol=2e-3, rtol=0)
    torch.testing.assert_close(half_loss, loss, atol=2e-3, rtol=0)


def test_a_run_in_bf16_learns_about_the_same(trained, tmp_path):
    single, half = tmp_path / "32-true", tmp_path / "bf16-mixed"
    for run in (single, half):
        weights = learned(trained.cohort, run, f"trainer.precision={run.name}", "+trainer.limit_train_batches=6")
        assert all(values.dtype == torch.float32 for values in weights.values() if values.is_floating_point())
    (one,), (other,) = history_of(single), history_of(half)
    assert other["train/loss"] != one["train/loss"]
    assert other["train/loss"] == pytest.approx(one["train/loss"], rel=0.02)
    assert other["val/loss"] == pytest.approx(one["val/loss"], rel=0.02)
