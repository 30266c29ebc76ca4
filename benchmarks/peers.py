"""What a user would write instead: the same network, samples and loss with MONAI, and in Lightning's usual style.

The peers read float32 .npy files, as one saves spectra; compseg reads its cohort. Epochs of each are timed with all
files in the page cache, and, where they are read anew in each epoch, with the files put out of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from common import Row, side_by_side, table
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, RandFlipd, RandRotate90d
from step import BATCH, module_of, spots
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from compseg.batches.datamodule import CohortData
from compseg.cohort import Cohort
from compseg.faults import StopSignals
from compseg.log import quiet_libraries
from compseg.models import UNet
from compseg.monitor.dashboards import Dashboards
from compseg.preprocessing import fit_standardisation
from compseg.training.build import build_trainer

SAMPLES, EPOCHS = 56, 2
WHAT = f"{EPOCHS} epochs of {SAMPLES} spots"
Files = list[dict]
Peers = dict[str, Callable[[], object]]


def measure(folder: Path, size: int = 64, channels: int = 450, rounds: int = 3) -> list[Row]:
    """Rows of the table."""
    quiet_libraries()
    cohort = spots(folder, size, channels)
    files, mean, std = as_npy(cohort, folder / "npy")
    peers = {
        "MONAI Dataset": monai(files, mean, std, Dataset),
        "MONAI CacheDataset": monai(files, mean, std, CacheDataset),
        "Lightning, DataModule of .npy": lightning(files, mean, std, folder),
    }
    kept = ours(cohort, folder, "ram")
    warm = [Row(f"{WHAT}, files in memory", *_pair(kept, peer, name, rounds)) for name, peer in peers.items()]
    del peers["MONAI CacheDataset"]  # reads each file once
    return warm + on_disk(cohort, folder, files, peers, rounds)


def on_disk(cohort: Cohort, folder: Path, files: Files, peers: Peers, rounds: int) -> list[Row]:
    """Rows of epochs that find no file in the page cache."""
    stored = [str(path) for path in Path(cohort.path).rglob("*") if path.is_file()]
    streamed = _forgetting(ours(cohort, folder, "none"), stored)
    written = [file["image"] for file in files]
    pairs = {name: _pair(streamed, _forgetting(peer, written), name, rounds) for name, peer in peers.items()}
    return [Row(f"{WHAT}, files on disk, cache=none", *pair) for pair in pairs.values()]


def _forgetting(call: Callable[[], object], paths: list[str]) -> Callable[[], object]:
    return lambda: (forget(paths), call())


def _pair(mine, theirs, name: str, rounds: int) -> tuple[float, str, float]:
    ours_, theirs_ = side_by_side(mine, theirs, rounds)
    return ours_, name, theirs_


def forget(paths: list[str]) -> None:
    """Put files out of the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def as_npy(cohort: Cohort, folder: Path) -> tuple[Files, np.ndarray, np.ndarray]:
    """Training samples as files `(C, H, W)` float32 with their labels, and the mean and deviation of each channel."""
    folder.mkdir(exist_ok=True)
    labels = {label: [info for info in cohort.split("train") if info.label == label] for label in (0, 1)}
    infos = [info for pair in zip(*labels.values(), strict=False) for info in pair][:SAMPLES]
    files = []
    for info in infos:
        path = folder / f"{info.name}.npy"
        np.save(path, np.moveaxis(cohort.image(info.name).astype(np.float32), -1, 0))
        files.append({"image": str(path), "label": float(info.label)})
    os.sync()  # what is not on disk cannot be put out of the cache
    first = np.load(files[0]["image"])
    return files, first.mean((1, 2)), first.std((1, 2)) + 1e-6


def network(channels: int) -> nn.Module:
    """The network of all sides."""
    torch.manual_seed(0)
    return UNet(channels, width=16, activation="relu", norm="group")


def monai(files: Files, mean, std, dataset: type) -> Callable[[], object]:
    """A plain PyTorch loop over MONAI's datasets and transforms."""
    transforms = Compose(
        [
            LoadImaged(keys="image", reader="NumpyReader", channel_dim=0),
            NormalizeIntensityd(keys="image", subtrahend=mean, divisor=std, channel_wise=True),
            RandFlipd(keys="image", prob=0.5, spatial_axis=1),
            RandRotate90d(keys="image", prob=0.75, max_k=3),
        ]
    )
    options = {"progress": False} if dataset is CacheDataset else {}
    loader = DataLoader(dataset(files, transforms, **options), batch_size=BATCH, shuffle=True, num_workers=0)
    net = network(len(mean))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def epochs():
        for _ in range(EPOCHS):
            for batch in loader:
                optimizer.zero_grad()
                logits = net(batch["image"].as_tensor()).mean((1, 2, 3))
                binary_cross_entropy_with_logits(logits, batch["label"].float()).backward()
                optimizer.step()

    return epochs


class NpyFiles(torch.utils.data.Dataset):
    """Samples as one writes them by hand."""

    def __init__(self, files: Files, mean, std) -> None:
        self.files, self.mean, self.std = files, mean[:, None, None], std[:, None, None]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        image = torch.from_numpy((np.load(self.files[index]["image"]) - self.mean) / self.std)
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image.rot90(int(torch.randint(4, ())), (-2, -1)), torch.tensor(self.files[index]["label"])


class NpyData(pl.LightningDataModule):
    """A DataModule of them."""

    def __init__(self, files: Files, mean, std) -> None:
        super().__init__()
        self.dataset = NpyFiles(files, mean, std)

    def train_dataloader(self):
        """Shuffled batches."""
        return torch.utils.data.DataLoader(self.dataset, batch_size=BATCH, shuffle=True)


class Classifier(pl.LightningModule):
    """A LightningModule as the templates have it, metric and progress included."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        from torchmetrics.classification import BinaryAccuracy

        self.net, self.accuracy = net, BinaryAccuracy()

    def training_step(self, batch, batch_idx):
        """Loss and accuracy, logged."""
        del batch_idx
        image, label = batch
        logits = self.net(image).mean((1, 2, 3))
        loss = binary_cross_entropy_with_logits(logits, label)
        self.accuracy(logits, label)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/acc", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        """As on the other sides."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def lightning(files: Files, mean, std, folder: Path) -> Callable[[], object]:
    """Lightning in the style of its templates."""
    module, data = Classifier(network(len(mean))), NpyData(files, mean, std)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}

    def epochs():
        trainer = pl.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, default_root_dir=str(folder), **quiet
        )
        trainer.fit(module, data)

    return epochs


def ours(cohort: Cohort, folder: Path, cache: str) -> Callable[[], object]:
    """Compseg's own epochs of as many samples, callbacks that write files left out as on the other sides."""
    kept = f"data.cache={cache}"
    module, cfg = module_of(
        cohort,
        "augmentation=flip_rotate90",
        f"trainer.max_epochs={EPOCHS}",
        kept,
        "hydra.run.dir=unused",
        "+trainer.limit_val_batches=0",
        f"+trainer.limit_train_batches={SAMPLES // BATCH}",
    )
    data = CohortData(str(cohort.path), batch_size=BATCH, cache=cache, workers=0)
    data.setup()
    fit_standardisation(module.preprocess, data.training_tissue())

    def epochs():
        build_trainer(cfg, folder / "run", Dashboards(), StopSignals(folder)).fit(module, datamodule=data)

    return epochs


if __name__ == "__main__":  # the table alone, for a disk whose speed is held back (docs/performance.md)
    with tempfile.TemporaryDirectory() as place:
        print(table(measure(Path(place))))
