"""`experiment=paper` is what the paper prints: each number, the cohort, the network, and a run of it."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from compseg.batches import BalancedBatches
from compseg.comparative import ComparativeHead
from compseg.config import check_targets, compose
from compseg.models.blocks import Conv
from running import history_of, succeed

PRINTED = [
    ("2: spectra are vectors of 450 values", "data.source.channels", 450),
    ("2: spots are images of 256 x 256", "data.source.size", 256),
    ("2: T, TI-III and M are cancer, N is healthy, NAT is neither", "data.source.class_labels",
     {"T": 1, "TI": 1, "TII": 1, "TIII": 1, "M": 1, "NAT": None, "N": 0}),
    ("2: the spectra are corrected beforehand; nothing more is named", "preprocess.corrections", []),
    ("3.1: the original U-Net", "model._target_", "compseg.models.UNet"),
    ("3.1: its width", "model.width", 64),
    ("3.1: its depth", "model.depth", 4),
    ("3.1: as many input channels as the images have", "model.in_channels", "${channels}"),
    ("3.1: one activation map", "method.maps", 1),
    ("3.1: the pooling neuron counts", "head.pool._target_", "compseg.comparative.MeanPool"),
    ("3.2: alpha", "head.alpha", 0.1),
    ("3.2: beta", "head.beta", 5.0),
    ("3.2: gamma", "head.gamma", 0.001),
    ("3.2: the loss is |o - alpha l|", "objective.loss", "l1"),
    ("3.2: its target is alpha", "objective.target", "alpha"),
    ("3.2: above the target it charges as below", "objective.one_sided", False),
    ("3.2: there is no other term", "regularisers", {}),
    ("3.2: the sample labels are all that is learned from", "pseudo_labels", None),
    ("3.2: SoftPlus", "model.activation", "softplus"),
    ("3.2: no normalisation is named", "model.norm", "none"),
    ("3.2: no dropout is named", "model.dropout", 0.0),
    ("3.2: RMSprop", "optimizer._target_", "torch.optim.RMSprop"),
    ("3.2: learning rate", "optimizer.lr", 0.001),
    ("3.2: no schedule is named", "scheduler.factor", 1.0),
    ("3.2 and 4: mini-batches of 7", "data.batch_size", 7),
    ("4: no augmentation is named", "augmentation", {}),
    ("4: 400 epochs", "trainer.max_epochs", 400),
    ("4: the model of least loss", "callbacks.best_and_last.mode", "min"),
    ("4: on the validation samples", "callbacks.best_and_last.monitor", "val/loss"),
    ("4: one threshold for all maps, .35", "evaluation.threshold", 0.35),
]  # fmt: skip

SMALLER = {"name", "data.path", "data.source.size", "model.width", "trainer.max_epochs"}


@pytest.fixture(scope="module")
def paper() -> DictConfig:
    return compose("train", ["experiment=paper"])


@pytest.fixture(scope="module")
def source(paper):
    return instantiate(paper.data.source)


def leaves(node, where="") -> dict[str, object]:
    """Every value of a nested dict by its dotted name."""
    if not isinstance(node, dict):
        return {where: node}
    pairs = (leaves(value, f"{where}.{key}".lstrip(".")) for key, value in node.items())
    return {name: value for pair in pairs for name, value in pair.items()}


def unresolved(cfg):
    return OmegaConf.to_container(cfg, resolve=False)


@pytest.mark.parametrize(("statement", "key", "value"), PRINTED, ids=[statement for statement, *_ in PRINTED])
def test_printed(paper, statement, key, value):
    node = unresolved(paper)
    for part in key.split("."):
        node = node[part]
    assert node == value, statement


@pytest.mark.parametrize("name", ["paper", "paper_small"])
def test_every_value_is_taken_by_its_target(name):
    check_targets(compose("train", [f"experiment={name}"]))


def test_small_differs_in_size_alone(paper):
    large, small = leaves(unresolved(paper)), leaves(unresolved(compose("train", ["experiment=paper_small"])))
    assert {key for key in large | small if large.get(key) != small.get(key)} == SMALLER
    assert small["data.source.size"] == 64
    assert small["data.source.channels"] == 450


@pytest.mark.parametrize(("objective", "values"), [("maximum", ("maximum", False)), ("one_sided", ("alpha", True))])
def test_corrected_targets_are_laid_over_the_protocol(objective, values):
    cfg = compose("train", ["experiment=paper_small", f"objective={objective}"])
    assert (cfg.objective.target, cfg.objective.one_sided) == values
    assert cfg.optimizer.lr == 0.001


def test_cohort_counts(source):
    infos = source.infos()
    assert Counter(info.split for info in infos) == {"train": 100, "val": 7, "test": 40}
    assert Counter(info.label for info in infos if info.split == "test") == {1: 20, 0: 20}
    assert {info.group for info in infos if info.split == "test"} == {"BC051111"}
    assert {info.group for info in infos if info.split != "test"} == {"CO1002b", "CO722"}
    assert len({info.patient for info in infos}) > 50


def test_cohort_classes(source):
    infos = source.infos()
    assert {info.class_name for info in infos if info.label == 1} == {"T", "TI", "TII", "TIII", "M"}
    assert {info.class_name for info in infos if info.label == 0} == {"N"}  # so no NAT anywhere


def test_arrays(source):
    holds = {name: array["holds"] for name, array in source.provenance()["arrays"].items()}
    assert all(100 <= sum(classes.values()) <= 200 for classes in holds.values())
    assert sum(holds["CO1002b"].values()) > holds["CO1002b"]["NAT"] > 0  # left out by its class, not for want of it
    third = holds["BC051111"]
    assert (sum(third.values()) - third["N"], third["N"]) == (180, 20)


def test_spectral_axis(source):
    channels = source.channels()
    assert (channels.count, channels.unit) == (450, "cm-1")
    assert (channels.values[0], channels.values[-1]) == (1800, 948)


def test_network(paper):
    paper = paper.copy()
    paper.channels = 450
    with torch.device("meta"):
        net = instantiate(paper.model)
        assert net(torch.empty(1, 450, 256, 256)).shape == (1, 1, 256, 256)
    kinds = Counter(type(module) for module in net.modules())
    # Two convolutions a level, five down and four up, each with SoftPlus; the last one gives the map.
    assert (kinds[Conv], kinds[nn.Conv2d], kinds[nn.Softplus]) == (18, 1, 18)
    assert kinds[nn.ConvTranspose2d] == 4
    parts = {Conv, nn.Conv2d, nn.ConvTranspose2d, nn.Softplus, nn.MaxPool2d, nn.Identity}
    assert {type(module) for module in net.modules() if not list(module.children())} <= parts


def test_output_is_the_printed_function_of_the_tissue_alone(paper):
    head = instantiate(paper.head)
    assert isinstance(head, ComparativeHead)
    logits, tissue = torch.full((1, 1, 10, 10), -30.0), torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    tissue[..., :5, :] = True
    logits[..., 0, :5] = 30.0  # 5 of 50 tissue pixels
    logits[..., 9, :] = 30.0  # and ten that are none
    out = head(logits, tissue)
    assert out.x.item() == pytest.approx(0.1)
    assert out.o.item() == pytest.approx(0.098761, abs=1e-6)
    assert instantiate(paper.objective)(out, torch.ones(1)).item() == pytest.approx(0.1 - 0.098761, abs=1e-6)


def test_mini_batches_of_one_device(source):
    labels = [info.label for info in source.infos() if info.split == "train"]
    batches = list(BalancedBatches(labels, 7))
    assert [len(batch) for batch in batches] == [7] * 14
    assert len({index for batch in batches for index in batch}) == 98


def test_mini_batches_of_four_devices(source):
    """`trainer.devices=4 data.batch_size=2` is a step of 8, the nearest to 7 that four devices can share in pairs."""
    labels = [info.label for info in source.infos() if info.split == "train"]
    steps = list(zip(*(BalancedBatches(labels, 2, rank=rank, world=4) for rank in range(4)), strict=True))
    assert all(len({index for batch in step for index in batch}) == 8 for step in steps)
    assert all(Counter(labels[index] for index in batch) == {0: 1, 1: 1} for step in steps for batch in step)


def test_two_steps_and_the_papers_figures(tmp_path):
    run = tmp_path / "run"
    succeed(
        "train",
        "experiment=paper",
        "data.source.size=16",
        "model.width=4",
        "trainer.max_epochs=1",
        "+trainer.limit_train_batches=2",
        "trainer.accelerator=cpu",
        f"data.path={tmp_path / 'cohort.zarr'}",
        f"hydra.run.dir={run}",
    )
    # Half of alpha: nothing tells one spot from another yet.
    assert history_of(run)[0]["train/loss"] == pytest.approx(0.05, abs=0.02)
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["threshold"] == 0.35
    assert {"test/area_auc", "test/dice_mean", "test/dice_std"} <= set(figures)
    with (run / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["label"] for row in rows) == {"1": 20, "0": 20}
    assert Counter(bool(row["dice"]) for row in rows if row["label"] == "1") == {True: 20}
    assert not any(row["dice"] for row in rows if row["label"] == "0")
