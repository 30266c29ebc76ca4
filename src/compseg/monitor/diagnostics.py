"""What the maps of an epoch look like in a few numbers, gathered batch by batch without keeping the maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from compseg.batches import Batch, CohortData
from compseg.comparative import ComparativeHead, HeadOutput, Transfer
from compseg.evaluation.metrics import auc
from compseg.samples import SampleInfo

# The first bin ends at an activation of .01, below which the collapse detector calls a pixel empty.
BINS = 100
# Below a hundredth of its steepest slope a transfer passes next to no gradient on to the map.
FLAT_SLOPE = 0.01

Floats = NDArray[np.float64]
Reduce = Callable[[Tensor], Tensor]


class Network(Protocol):
    """What the callbacks here read of the module that is trained, a `compseg.training.CompSegNet`.

    Attributes:
        head: Its transfer says where x is saturated.
        device: Where its weights are.
        seed: Of the training.
        config: The resolved configuration.
    """

    head: ComparativeHead
    device: torch.device
    seed: int
    config: Mapping[str, Any]

    def __call__(self, image: Tensor, tissue: Tensor) -> HeadOutput:
        """Raw image `(B, C, H, W)` and tissue `(B, 1, H, W)` to map, pooled activation and output."""
        ...


@dataclass(frozen=True)
class Pooled:
    """The pooled activation of the samples that an epoch has shown.

    Attributes:
        infos: N samples.
        x: `(N,)` pooled activation.
    """

    infos: Sequence[SampleInfo]
    x: Floats

    @property
    def labels(self) -> NDArray[np.int64]:
        """`(N,)` 1 = disease, 0 = healthy."""
        return np.array([info.label for info in self.infos], dtype=np.int64)

    @property
    def auc(self) -> float:
        """Area under the ROC over samples by x: 1 if all of disease lie above all healthy ones; NaN for one class."""
        return auc(self.x, self.labels)

    def mean(self, label: int) -> float:
        """Mean x of a class; NaN where none of it was shown."""
        return _mean(self.x[self.labels == label])

    @property
    def separation(self) -> float:
        """Mean x of disease samples less that of healthy ones."""
        return self.mean(1) - self.mean(0)


@dataclass(frozen=True)
class Diagnosis:
    """The maps of one epoch.

    Attributes:
        train: Training samples, each as it was seen in its own step.
        val: Validation samples, all with the epoch's last weights.
        histogram: `(2, BINS)` tissue pixels of healthy and of disease validation samples by activation, in even bins
            from 0 to 1.
        inside: `(N,)` mean activation on the tissue of each validation sample.
        spread: `(N,)` standard deviation of the activation over it.
        outside: `(N,)` mean activation off the tissue; NaN for a sample that is tissue throughout.
        saturated: Share of the validation samples at whose x the transfer is flat.
    """

    train: Pooled
    val: Pooled
    histogram: Floats
    inside: Floats
    spread: Floats
    outside: Floats
    saturated: float

    def of(self, values: Floats, label: int) -> float:
        """Mean over the validation samples of a class, without undefined ones; NaN where none is left."""
        chosen = values[self.val.labels == label]
        return _mean(chosen[np.isfinite(chosen)])

    @property
    def shares(self) -> Floats:
        """`(2, BINS)` the histogram as shares of the class's tissue."""
        shares: Floats = self.histogram / np.maximum(self.histogram.sum(1, keepdims=True), 1)
        return shares


class Collector:
    """Gathers a `Diagnosis` batch by batch; nothing is read from the device before `finish`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all batches."""
        self._x: list[tuple[list[int], Tensor]] = []
        self._rows: list[tuple[list[int], Tensor]] = []
        self._histogram: Tensor | None = None

    def add_training(self, index: list[int], x: Tensor) -> None:
        """Add a training batch: places of its samples in the split, and their x `(B,)`."""
        self._x.append((index, x[:, None].double()))

    def add_validation(self, index: list[int], output: HeadOutput, labels: Tensor) -> None:
        """Add a validation batch: places of its samples in the split, what the head gave, labels `(B,)`."""
        self._rows.append((index, _rows(output)))
        histogram = _histogram(output, labels)
        self._histogram = histogram if self._histogram is None else self._histogram + histogram

    def training_state(self, size: int, reduce: Reduce) -> dict[str, Tensor] | None:
        """What all ranks have added of the `size` training samples so far; None if nothing."""
        if not self._x:
            return None
        seen, (x,) = _joined(self._x, size, reduce)
        return {"index": torch.from_numpy(seen).nonzero()[:, 0], "x": torch.from_numpy(x)}

    def finish(
        self, train: Sequence[SampleInfo], val: Sequence[SampleInfo], transfer: Transfer, reduce: Reduce
    ) -> Diagnosis:
        """The epoch in numbers, the same on all ranks; then forget its batches.

        Args:
            train: Samples of the training split, in the order of the indices.
            val: Samples of the validation split.
            transfer: Of the head.
            reduce: Sums a tensor over the ranks.
        """
        assert self._histogram is not None
        seen_train, (x_train,) = _joined(self._x, len(train), reduce)
        seen, (x, inside, square, off, off_pixels) = _joined(self._rows, len(val), reduce)
        histogram = reduce(self._histogram).cpu().numpy().reshape(2, BINS)
        self.clear()
        steepest = slopes(transfer, np.linspace(0, 1, 1001)).max()
        # Not every training sample has been seen: an epoch ends when the smaller class is used up (`BalancedBatches`).
        return Diagnosis(
            train=Pooled([info for info, was in zip(train, seen_train, strict=True) if was], x_train),
            val=Pooled([info for info, was in zip(val, seen, strict=True) if was], x),
            histogram=histogram,
            inside=inside,
            # Rounding may leave the variance of a flat map just below 0.
            spread=np.sqrt(np.maximum(square - inside**2, 0)),
            outside=np.divide(off, off_pixels, out=np.full_like(off, np.nan), where=off_pixels > 0),
            saturated=float((slopes(transfer, x) < FLAT_SLOPE * steepest).mean()),
        )


def _rows(output: HeadOutput) -> Tensor:
    """`(B, 5)`: x, mean and mean square of the activation on tissue, its sum and the number of pixels off tissue."""
    # float64, because `finish` subtracts the square of the mean from the mean square.
    activation, tissue = output.activation[:, 0].double(), output.tissue[:, 0]
    # A sample without tissue has means of 0 and not NaN, which would count as a collapse.
    on, off = tissue.sum((1, 2)).clamp(min=1), (~tissue).sum((1, 2))
    sums = [(activation * tissue).sum((1, 2)) / on, (activation**2 * tissue).sum((1, 2)) / on]
    return torch.stack([output.x.double(), *sums, (activation * ~tissue).sum((1, 2)), off.double()], dim=1)


def _histogram(output: HeadOutput, labels: Tensor) -> Tensor:
    """`(2 * BINS,)` tissue pixels by class and bin."""
    # NaN has no bin, and is found by the means; an activation of 1 belongs to the last bin.
    bins = (output.activation.nan_to_num() * BINS).long().clamp(max=BINS - 1)
    places = bins + BINS * labels.long()[:, None, None, None]
    # float32 would stop counting at 2^24 pixels, 256 spots of 256 x 256. Not `bincount`: its size depends on the
    # values, so that the host would wait for the device.
    counts = torch.zeros(2 * BINS, dtype=torch.float64, device=bins.device)
    return counts.index_add_(0, places.flatten(), output.tissue.flatten().double())


def _joined(parts: list[tuple[list[int], Tensor]], size: int, reduce: Reduce) -> tuple[NDArray[np.bool_], list[Floats]]:
    """Which of `size` samples were seen on any rank, and the columns of their rows."""
    # The first part of a resumed epoch comes from a file, which is on the host.
    rows = torch.cat([values.to(parts[-1][1].device) for _, values in parts])
    index = torch.tensor([place for places, _ in parts for place in places], device=rows.device)
    # Each rank fills the rows of its own samples: the sum over ranks is the whole table, however they were shared.
    table = torch.zeros(size, 1 + rows.shape[1], dtype=torch.float64, device=rows.device)
    table[index] = torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1)
    whole = reduce(table).cpu().numpy()
    seen = whole[:, 0] > 0
    return seen, list(whole[seen, 1:].T)


def slopes(transfer: Transfer, x: Floats) -> Floats:
    """The transfer's slope at each x `(N,)`, without its sign."""
    learned = next(transfer.parameters(), None)
    device = torch.device("cpu") if learned is None else learned.device
    # Lightning validates in inference mode, in which nothing has a gradient.
    with torch.inference_mode(False), torch.enable_grad():
        at = torch.tensor(x, device=device, requires_grad=True)
        (slope,) = torch.autograd.grad(transfer(at).sum(), at)
    return slope.abs().cpu().numpy()


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


class Diagnostics(Callback):
    """Gathers the epoch's `Diagnosis` and logs its scalars, `collapse/...` and the sample AUC by x.

    Attributes:
        latest: Of the last validation; the same on all ranks. None before the first.
    """

    def __init__(self) -> None:
        self.collector = Collector()
        self.latest: Diagnosis | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an epoch that ended without validation."""
        del trainer, pl_module
        self.collector.clear()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keep x."""
        del trainer, pl_module, batch_idx
        self.collector.add_training(batch["index"], outputs["x"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put what an unfinished epoch has gathered so far into the checkpoint."""
        del pl_module
        checkpoint["diagnostics"] = self.collector.training_state(len(data_of(trainer).train), _over_ranks(trainer))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue with it, on one rank, for it is what all of them had."""
        del pl_module
        if trainer.is_global_zero and (state := checkpoint.get("diagnostics")):
            self.collector.add_training(state["index"].tolist(), state["x"])

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep sums of the maps."""
        del trainer, pl_module, batch_idx, dataloader_idx
        self.collector.add_validation(batch["index"], outputs["head"], batch["label"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up over the ranks and log."""
        data, transfer = data_of(trainer), cast("Network", pl_module).head.transfer
        d = self.latest = self.collector.finish(data.train.infos, data.val.infos, transfer, _over_ranks(trainer))
        values = {
            "train/x_auc": d.train.auc,
            "val/x_auc": d.val.auc,
            "collapse/separation": d.val.separation,
            "collapse/saturated": d.saturated,
            "collapse/spread": d.of(d.spread, 1),
            "collapse/outside": float(np.mean([d.of(d.outside, label) for label in (0, 1)])),
        }
        # The same on all ranks already.
        pl_module.log_dict({name: value for name, value in values.items() if np.isfinite(value)}, rank_zero_only=False)


def _over_ranks(trainer: pl.Trainer) -> Reduce:
    return lambda sums: trainer.strategy.reduce(sums, reduce_op="sum")


def data_of(trainer: pl.Trainer) -> CohortData:
    """The data that a trainer trains on."""
    data: CohortData = trainer.datamodule  # type: ignore[attr-defined]
    return data


def diagnosis_of(trainer: pl.Trainer) -> Diagnosis:
    """The last validation's, for callbacks that come after `Diagnostics`."""
    (source,) = (callback for callback in trainer.callbacks if isinstance(callback, Diagnostics))  # type: ignore[attr-defined]
    assert source.latest is not None
    return source.latest
