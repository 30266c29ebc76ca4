"""The step: epochs through Lightning, head, metrics and logging against a bare loop over the same batches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from common import Rolled, Row, side_by_side
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW
from torch.utils.data import DataLoader

from compseg.batches.datamodule import CohortData
from compseg.cohort import Cohort, prepare
from compseg.config import compose
from compseg.faults import StopSignals
from compseg.log import quiet_libraries
from compseg.memory import keep_freed
from compseg.monitor.dashboards import Dashboards
from compseg.training.build import build_comparison, build_module, build_trainer
from compseg.training.fit import fit_preprocessing, fit_pseudo_labels
from compseg.training.module import CompSegNet
from compseg.training.resolve import resolve, resolve_by_pseudo_labels

CHANNELS, SIZE, BATCH, EPOCHS, STEPS = 450, 64, 7, 6, 12
NETWORK = ("model=unet_small", "method=paper2020", "preprocess=none", "augmentation=none", "scheduler=constant")
TRAINER = ("trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}", "trainer.enable_progress_bar=false")


def measure(folder: Path) -> list[Row]:
    """Rows of the table."""
    quiet_libraries()
    cohort = spots(folder)
    return [
        _whole(cohort, folder, "Lightning, head, metrics, history", callbacks=False),
        _whole(cohort, folder, "the same with validation, checkpoints and pictures of each epoch", callbacks=True),
        _default(folder),
    ]


def _default(folder: Path, size: int = 256, count: int = 8) -> Row:
    """An epoch of default training from decoded samples, against its network on inputs that are ready."""
    cohort = few_spots(folder, size, count)
    cfg = compose(
        "train",
        [*TRAINER, "trainer.max_epochs=2", "data=cohort", f"data.path={cohort.path}", "data.batch_size=4",
         "data.cache=ram", "data.workers=0", "hydra.run.dir=unused"],
    )  # fmt: skip
    cfg.callbacks = {}
    cfg = resolve(cfg, cohort).cfg
    module, data = build_module(cfg), instantiate(cfg.data)
    data.setup()
    fit_preprocessing(module, data)
    fit_pseudo_labels(module, data)
    cfg = resolve_by_pseudo_labels(cfg, module.pseudo_labels).cfg
    module.compare_by(*build_comparison(cfg), config={})
    module.sees_whole_samples = True
    data.val_dataloader = lambda: []
    keep_freed()
    with torch.no_grad():
        ready = [module._prepared(batch, {})["image"].clone() for batch in data.train_dataloader()]
    optimizer = AdamW(module.parameters(), lr=1e-3)

    def whole():
        with tempfile.TemporaryDirectory(dir=folder) as run:
            trainer = build_trainer(cfg, Path(run), Dashboards(), StopSignals(Path(run)))
            trainer.fit(module, data)

    def bare():
        for image in ready * 2:
            optimizer.zero_grad()
            module.segmenter(image).mean().backward()
            optimizer.step()

    ours, theirs = side_by_side(whole, bare, rounds=4)
    what = f"{2 * len(ready)} steps of 4 spots, default training at {size} x {size} x {CHANNELS}"
    return Row(what, ours, "its network on inputs that are ready", theirs)


def few_spots(folder: Path, size: int, count: int) -> Cohort:
    """Some spots of the default phantom, made on first use: `count` to train, as many to validate."""
    phantom = instantiate(few_spots_source(size, count))
    return prepare(Rolled(phantom), folder / f"few_{size}_{count}.zarr", progress=False)


def few_spots_source(size: int, count: int, channels: int = CHANNELS) -> DictConfig:
    """Their phantom."""
    each = count // 4
    arrays = [
        f"data.source.arrays.{name}.{part}"
        for name in ("A1", "A2")
        for part in (
            f"holds={{T:{4 * each},N:{4 * each}}}",
            f"takes={{train:{{healthy:{each},disease:{each}}},val:{{healthy:{each},disease:{each}}}}}",
        )
    ]
    return compose("train", [f"data.source.size={size}", f"data.source.channels={channels}", *arrays]).data.source


def spots(folder: Path, size: int = SIZE, channels: int = CHANNELS) -> Cohort:
    """As many spots as the paper's, small, made on first use."""
    source = instantiate(compose("train", ["experiment=paper_small"]).data.source, size=size, channels=channels)
    return prepare(Rolled(source), folder / f"paper_{size}_{channels}.zarr", progress=False)


def module_of(cohort: Cohort, *overrides: str, callbacks: bool = False) -> tuple[CompSegNet, DictConfig]:
    """A CompSegNet with a U-Net of width 16 and its configuration, with the callbacks that one may leave out or not."""
    cfg = compose("train", [*NETWORK, *TRAINER, "data=cohort", f"data.path={cohort.path}", *overrides])
    if not callbacks:
        cfg.callbacks = {}
    cfg = resolve(cfg, cohort).cfg
    return build_module(cfg), cfg


def loader_of(cohort: Cohort) -> tuple[CohortData, list[dict]]:
    """The cohort's data, kept in memory, and the batches of an epoch."""
    data = CohortData(str(cohort.path), batch_size=BATCH, cache="ram", workers=0)
    data.setup()
    return data, [batch for batch, _ in zip(data.train_dataloader(), range(STEPS), strict=False)]


def _whole(cohort: Cohort, folder: Path, what: str, callbacks: bool) -> Row:
    module, cfg = module_of(cohort, "hydra.run.dir=unused", callbacks=callbacks)
    data, batches = loader_of(cohort)
    data.train_dataloader = lambda: DataLoader(batches, batch_size=None)
    if not callbacks:
        data.val_dataloader = lambda: []

    def lightning():
        with tempfile.TemporaryDirectory(dir=folder) as run:
            build_trainer(cfg, Path(run), Dashboards(), StopSignals(Path(run))).fit(module, data)

    optimizer = AdamW(module.parameters(), lr=1e-3)

    def bare():
        for batch in batches * EPOCHS:
            optimizer.zero_grad()
            logits = module.segmenter(module.preprocess(batch["image"], batch["tissue"]))
            binary_cross_entropy_with_logits(logits.mean((1, 2, 3)), batch["label"]).backward()
            optimizer.step()

    ours, theirs = side_by_side(lightning, bare, rounds=4)
    return Row(f"{EPOCHS * len(batches)} steps of {BATCH} spots, U-Net base 16: {what}", ours, "bare loop", theirs)
