"""Cost against size: training in samples, pixels and channels, prediction in pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Row, growth
from prediction import segmenter_of
from step import loader_of, module_of, spots

from compseg.cohort import Cohort
from compseg.faults import StopSignals
from compseg.inference.images import new_images
from compseg.inference.prediction import predict
from compseg.log import quiet_libraries
from compseg.memory import keep_freed
from compseg.monitor.dashboards import Dashboards
from compseg.samples import Channels
from compseg.training.build import build_trainer

TIMES = 16


def measure(folder: Path) -> list[Row]:
    """Rows of the table."""
    quiet_libraries()
    cohort = spots(folder, size=32, channels=16)
    # Before training, which has its process keep what it frees.
    prediction = growth("prediction, pixels", TIMES, _map(folder, 2048), _map(folder, 512), rounds=3)
    keep_freed()
    return [
        growth("training, samples", TIMES, _epoch(cohort, folder, 256 * TIMES), _epoch(cohort, folder, 256), rounds=3),
        growth("training, pixels a sample", TIMES, _steps(16, 512), _steps(16, 128), rounds=3),
        growth("training, channels", TIMES, _steps(32 * TIMES, 64), _steps(32, 64)),
        prediction,
    ]


def _epoch(cohort: Cohort, folder: Path, count: int) -> Callable[[], object]:
    """An epoch of `count` samples, batches of 4, as `compseg.train` runs it."""
    module, cfg = module_of(cohort, "trainer.max_epochs=1", "hydra.run.dir=unused")
    batch = _batch(16, 32, 4)
    data, _ = loader_of(cohort)
    data.train_dataloader = lambda: torch.utils.data.DataLoader([batch] * (count // 4), batch_size=None)
    data.val_dataloader = lambda: []

    def epoch():
        with tempfile.TemporaryDirectory(dir=folder) as run:
            build_trainer(cfg, Path(run), Dashboards(), StopSignals(Path(run))).fit(module, data)

    return epoch


def _steps(channels: int, size: int) -> Callable[[], object]:
    """A training step of seven samples."""
    module = _module(channels)
    batch = _batch(channels, size, 7)

    def step():
        module.zero_grad()
        module.training_step(batch, 0)["loss"].backward()

    return step


def _module(channels: int):
    from compseg.config import compose
    from compseg.training.build import build_module

    return build_module(
        compose(
            "train",
            [
                "model=unet_small",
                "model.width=8",
                "preprocess=none",
                "method=paper2020",
                "augmentation=none",
                f"channels={channels}",
            ],
        )
    )


def _batch(channels: int, size: int, count: int) -> dict:
    image = torch.from_numpy(np.random.default_rng(0).random((count, size, size, channels), dtype=np.float32)).half()
    return {
        "image": image.permute(0, 3, 1, 2),
        "tissue": torch.ones(count, 1, size, size, dtype=torch.bool),
        "label": (torch.arange(count) % 2).float(),
        "index": list(range(count)),
    }


def _map(folder: Path, size: int) -> Callable[[], object]:
    """Prediction of one image of `size` pixels a side, from file to files; the network sees 9 pixels far."""
    np.save(folder / f"{size}.npy", np.random.default_rng(0).random((size, size, 64), dtype=np.float32).astype("f2"))
    segmenter = segmenter_of(Channels(64), width=16, depth=1, activation="relu", norm="batch")
    return lambda: predict(segmenter, new_images(folder / f"{size}.npy"), folder / f"maps_{size}")
