"""Two real processes over gloo: one run, the same learning as one process, and ends that are clear."""

from __future__ import annotations

import functools
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from choices import nodes_of
from compseg.batches import BalancedBatches
from compseg.config import compose
from compseg.config.verbs import conf_dir
from compseg.training import CompSegNet
from compseg.training.build import build_module
from running import history_of, run_verb, succeed, tiny
from signalled import signal_at


@pytest.mark.slow
def test_two_processes_leave_one_run(trained, tmp_path):
    run = tmp_path / "run"
    printed = succeed("train", *tiny(trained.cohort, run, "trainer.devices=2", "data.batch_size=4"))
    assert len(history_of(run)) == 2
    assert (run / "report.html").is_file()
    assert printed.count("report: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


# Without dropout and batch statistics, two devices with half the batch are one device with the whole. Plain gradient
# descent, for optimizers that divide by a gradient's size make much of rounding where a gradient is next to nothing.
PLAIN = (
    "optimizer=rmsprop",
    "optimizer._target_=torch.optim.SGD",
    "optimizer.lr=0.5",
    "scheduler=constant",
    "augmentation=none",
    "preprocess=none",
    "model.norm=none",
    "model.activation=silu",  # smooth: at a kink, rounding decides which way a step goes
    "model.width=4",
    "model.depth=1",
)
STEPS, SAMPLES, SIZE, CHANNELS = 10, 16, 16, 4
# The loss of every file in conf/, and those that a key makes of the printed one.
LOSSES = [
    *(place.replace("/", "=") for place in nodes_of("objective") if not place.startswith("fallback/")),
    *(f"regulariser={path.stem}" for path in sorted((conf_dir() / "regulariser").glob("*.yaml"))),
    "objective.loss=rmse",
    "objective.loss=mse",
]


def network(loss: str) -> CompSegNet:
    """A small CompSegNet as the configuration makes it; the same in every process."""
    torch.manual_seed(0)
    return build_module(configuration(loss)).train()


@functools.cache
def configuration(loss: str) -> DictConfig:
    # With an alpha of 0.1 an untrained network's output is saturated, and ten steps lead nowhere.
    method = [loss, "pseudo_labels=none"] if loss.startswith("method=") else ["method=paper2020", loss]
    return compose("train", [*PLAIN, *method, "head=sigma", "head.alpha=1", f"channels={CHANNELS}"])


def batch_of(index: list[int]) -> dict[str, Any]:
    """Samples of noise in which disease has a square that is brighter in one channel, and its truth."""
    noise = torch.randn(SAMPLES, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    label = torch.arange(SAMPLES) % 2
    truth = torch.zeros(SAMPLES, 1, SIZE, SIZE, dtype=torch.bool)
    truth[label == 1, :, 3:9, 2:7] = True
    tissue = torch.ones_like(truth)
    tissue[..., :2] = False
    whole = {"image": noise + truth, "tissue": tissue, "truth": truth, "label": label.float()}
    return {**{name: values[index] for name, values in whole.items()}, "index": index}


class Step(nn.Module):
    """What DistributedDataParallel calls: a training step."""

    def __init__(self, module: CompSegNet) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.module.training_step(batch, 0)["loss"]


def learned(loss: str, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """The weights after ten steps on one rank's share of eight samples a step."""
    module = network(loss)
    step: nn.Module = Step(module)
    if world > 1:
        step = DistributedDataParallel(step, broadcast_buffers=False)
    optimizer = module.make_optimizer(parameter for parameter in module.parameters() if parameter.requires_grad)
    batches = BalancedBatches([i % 2 for i in range(SAMPLES)], 8 // world, 0, rank, world)
    for number in range(STEPS):
        batches.set_epoch(number // len(batches))
        optimizer.zero_grad()
        step(batch_of(list(batches)[number % len(batches)])).backward()
        optimizer.step()
        module.views.follow(module.segmenter)
    return {name: values.clone() for name, values in module.state_dict().items()}


def on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({loss: learned(loss, rank, 2) for loss in LOSSES}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    """The weights by loss on each of two ranks, which are started once for all losses."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(on_rank, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("loss", LOSSES)
def test_two_devices_learn_what_one_does(loss, on_two_ranks):
    start, single = dict(network(loss).named_parameters()), learned(loss)
    moved = max(float((single[name] - weight).abs().max()) for name, weight in start.items())
    assert moved > 1e-3, "a network that has not learned proves nothing"
    for rank in on_two_ranks:
        for name, values in single.items():
            torch.testing.assert_close(rank[loss][name], values, atol=1e-5, rtol=1e-5, msg=name)


DROPOUT = ("trainer.devices=2", "data.batch_size=4", "model.dropout=0.3", "evaluation.split=none")


@pytest.fixture(scope="module")
def unbroken(trained, tmp_path_factory) -> Path:
    """A run on two devices that nobody has stopped."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    succeed("train", *tiny(trained.cohort, run, *DROPOUT))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("default", "default"), ("default", "fsdp"), ("fsdp", "default")])
def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on(trained, unbroken, tmp_path, before, after):
    """It ends as one that was not stopped, with shares of the network as with copies."""
    run = tmp_path / "run"
    arguments = tiny(trained.cohort, run, *DROPOUT)
    done = run_verb("train", *arguments, f"trainer={before}", signal_at(signal.SIGUSR1, epoch=1, step=2, rank=1))
    assert done.returncode == 128 + signal.SIGUSR1, done.stderr
    assert done.stderr.count("compseg train") == 1
    assert "stopped by SIGUSR1 in epoch 1 after step 3 of " in done.stderr
    succeed("train", *arguments, f"trainer={after}", "trainer.resume=auto")
    for one, other in zip(history_of(unbroken), history_of(run), strict=True):
        assert {**other, "seconds": 0} == pytest.approx({**one, "seconds": 0}, abs=1e-5, rel=1e-5)
    for name, values in weights(unbroken).items():
        torch.testing.assert_close(weights(run)[name], values, atol=1e-6, rtol=1e-5)
    assert (run / "segmenter" / "weights.safetensors").is_file()


def weights(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "code", "complaint"),
    [
        (1, 1, r"compseg train: rank 1 \(process \d+\) was ended by SIGKILL, "),
        (0, -signal.SIGKILL, r"compseg train.*: (the process that started this rank is gone|lost contact)"),
    ],
)
def test_a_killed_rank_ends_the_other(trained, tmp_path, rank, code, complaint):
    run = tmp_path / "run"
    arguments = tiny(trained.cohort, run, "trainer.devices=2", "data.batch_size=4", "evaluation.split=none")
    # It returns when both processes have ended, for both hold its stderr.
    done = run_verb("train", *arguments, signal_at(signal.SIGKILL, epoch=1, step=2, rank=rank))
    assert done.returncode == code
    said = [line for line in done.stderr.splitlines() if line.startswith("compseg train")]
    assert len(said) == 1, done.stderr
    assert re.match(complaint, said[0])
    assert "trainer.resume=auto" in said[0]
    assert "Traceback" not in done.stderr
    before_the_kill = (run / "checkpoints/last.ckpt").stat().st_mtime
    assert time.time() - before_the_kill < 60
