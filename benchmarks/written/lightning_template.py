"""What one writes in the style of Lightning's templates: `python lightning_template.py labels.csv out epochs`."""

# ruff: noqa: ARG002, D101, D102
import csv
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torchmetrics.classification import BinaryAUROC, BinaryROC

from compseg.models import UNet

matplotlib.use("Agg")
import matplotlib.pyplot as plt


class Spots(torch.utils.data.Dataset):
    def __init__(self, rows, folder, mean, std, augment):
        self.rows, self.folder, self.mean, self.std, self.augment = rows, folder, mean, std, augment

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        image = torch.from_numpy((np.load(self.folder / row["image"]) - self.mean) / self.std).permute(2, 0, 1)
        if self.augment:
            image = image.flip(-1) if torch.rand(()) < 0.5 else image
            image = image.rot90(int(torch.randint(4, ())), (-2, -1))
        return image, torch.tensor(float(row["label"])), row["sample"]


class SpotData(pl.LightningDataModule):
    def __init__(self, manifest):
        super().__init__()
        rows = list(csv.DictReader(manifest.open()))
        self.rows = {split: [row for row in rows if row["split"] == split] for split in ("train", "val", "test")}
        self.folder = manifest.parent
        first = np.load(self.folder / self.rows["train"][0]["image"])
        self.mean, self.std = first.mean((0, 1)), first.std((0, 1)) + 1e-6

    def loader(self, split, size=8):
        data = Spots(self.rows[split], self.folder, self.mean, self.std, split == "train")
        return torch.utils.data.DataLoader(data, batch_size=size, shuffle=split == "train")

    def train_dataloader(self):
        return self.loader("train")

    def val_dataloader(self):
        return self.loader("val")

    def test_dataloader(self):
        return self.loader("test", 1)


class Segmenter(pl.LightningModule):
    def __init__(self, channels, out):
        super().__init__()
        self.net = UNet(channels, width=16, depth=1, activation="leaky_relu", norm="batch")
        self.criterion, self.auc, self.roc, self.out = torch.nn.BCEWithLogitsLoss(), BinaryAUROC(), BinaryROC(), out

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self.net(batch[0]).mean((1, 2, 3)), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.criterion(self.net(batch[0]).mean((1, 2, 3)), batch[1]))

    def test_step(self, batch, batch_idx):
        activation = torch.sigmoid(self.net(batch[0]))[0, 0]
        score = (activation > 0.5).float().mean()[None]
        self.auc.update(score, batch[1].int())
        self.roc.update(score, batch[1].int())
        np.save(self.out / f"{batch[2][0]}.npy", activation.numpy())
        plt.imsave(self.out / f"{batch[2][0]}.png", activation.numpy(), vmin=0, vmax=1)

    def on_test_epoch_end(self):
        self.log("test/auc", self.auc.compute())
        self.roc.plot()[0].savefig(self.out / "roc.png")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


manifest, out, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
pl.seed_everything(0)
out.mkdir(parents=True)
data = SpotData(manifest)
module = Segmenter(len(data.mean), out)
checkpoint = ModelCheckpoint(out / "checkpoints", monitor="val/loss")
trainer = pl.Trainer(
    max_epochs=epochs, accelerator="cpu", devices=1, logger=CSVLogger(out), callbacks=[checkpoint],
    enable_progress_bar=False,
)  # fmt: skip
trainer.fit(module, data)
trainer.test(module, data, ckpt_path="best")
