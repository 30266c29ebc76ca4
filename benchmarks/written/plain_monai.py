"""What one writes with PyTorch and MONAI: `python plain_monai.py labels.csv out epochs`."""

import csv
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.networks.nets import UNet
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, RandFlipd, RandRotate90d

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score, roc_curve

manifest, out, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rows = list(csv.DictReader(manifest.open()))
splits = {split: [row for row in rows if row["split"] == split] for split in ("train", "val", "test")}
for row in rows:
    row["image"], row["label"] = str(manifest.parent / row["image"]), float(row["label"])
first = np.load(splits["train"][0]["image"])
mean, std = first.mean((0, 1)), first.std((0, 1)) + 1e-6
prepare = [
    LoadImaged(keys="image", reader="NumpyReader", channel_dim=-1, ensure_channel_first=True),
    NormalizeIntensityd(keys="image", subtrahend=mean, divisor=std, channel_wise=True),
]
augment = [RandFlipd(keys="image", prob=0.5, spatial_axis=1), RandRotate90d(keys="image", prob=0.75, max_k=3)]
data = {
    split: CacheDataset(of, Compose(prepare + (augment if split == "train" else [])), progress=False)
    for split, of in splits.items()
}
torch.manual_seed(0)
net = UNet(2, in_channels=len(mean), out_channels=1, channels=(16, 32), strides=(2,), norm="batch")
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
criterion = torch.nn.BCEWithLogitsLoss()
out.mkdir(parents=True)
best = float("inf")
for epoch in range(epochs):
    net.train()
    for batch in DataLoader(data["train"], batch_size=8, shuffle=True):
        optimizer.zero_grad()
        criterion(net(batch["image"].as_tensor()).mean((1, 2, 3)), batch["label"].float()).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        losses = [
            criterion(net(batch["image"].as_tensor()).mean((1, 2, 3)), batch["label"].float()).item()
            for batch in DataLoader(data["val"], batch_size=8)
        ]
    print(epoch, loss := float(np.mean(losses)), flush=True)
    if loss < best:
        best = loss
        torch.save(net.state_dict(), out / "best.pt")
net.load_state_dict(torch.load(out / "best.pt"))
scores = []
for row, batch in zip(splits["test"], DataLoader(data["test"], batch_size=1), strict=True):
    with torch.no_grad():
        activation = torch.sigmoid(net(batch["image"].as_tensor()))[0, 0].numpy()
    scores.append(float((activation > 0.5).mean()))
    np.save(out / f"{row['sample']}.npy", activation)
    plt.imsave(out / f"{row['sample']}.png", activation, vmin=0, vmax=1)
labels = [row["label"] for row in splits["test"]]
false, true, _ = roc_curve(labels, scores)
plt.plot(false, true, label=f"AUC {roc_auc_score(labels, scores):.3f}")
plt.legend()
plt.savefig(out / "roc.png")
