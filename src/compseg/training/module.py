"""The CompSegNet as a LightningModule: it only joins preprocessing, segmenter, comparative head and objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from compseg.batches import Batch
from compseg.batches.augmentation import Augmentation, augment
from compseg.comparative import (
    ComparativeHead,
    EncoderPseudoLabels,
    FisherPseudoLabels,
    HeadOutput,
    Objective,
    PseudoLabels,
    mean_over_ranks,
)
from compseg.errors import CompsegError
from compseg.inference.network_input import backgrounds_of, input_by_pixels, network_input
from compseg.models.blocks import move_start
from compseg.preprocessing import Preprocess
from compseg.preprocessing.preprocess import by_pixels
from compseg.training.resume import replanned
from compseg.training.strategies import shard
from compseg.training.views import Views

OptimizerFactory = Callable[..., torch.optim.Optimizer]
SchedulerFactory = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class EpochSums:
    """What an epoch leaves behind: sums of the objective's statistics and of x by class.

    They are kept on the device and read once at the end.
    """

    def __init__(self) -> None:
        self.statistics: Tensor | None = None
        self.by_class: Tensor | None = None

    def add(self, statistics: Tensor, x: Tensor, labels: Tensor) -> None:
        """Add one batch: statistics `(B, K)`, pooled activation `(B,)`, labels `(B,)`."""
        # The count is a column of the sums, so that one reduction over the ranks brings both.
        rows = torch.cat([torch.ones_like(statistics[:, :1]), statistics], dim=1).detach().double()
        classes = torch.stack([1 - labels, labels])
        sums = torch.stack([classes.sum(1), (classes * x.detach()).sum(1)]).double()
        # Sums of a resumed epoch come from a file, which is on the host.
        self.statistics = rows.sum(0) + (0 if self.statistics is None else self.statistics.to(rows.device))
        self.by_class = sums + (0 if self.by_class is None else self.by_class.to(sums.device))

    def means(self, reduce: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Means over all samples of all ranks, then start again from zero.

        Statistics `(K,)` and x of healthy and disease samples `(2,)`.
        """
        assert self.statistics is not None
        assert self.by_class is not None
        statistics, by_class = reduce(self.statistics), reduce(self.by_class)
        self.load(None)
        return (statistics[1:] / statistics[0]).float(), (by_class[1] / by_class[0]).float()

    def state(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, Tensor] | None:
        """The sums over all ranks in the middle of an epoch; None before its first batch."""
        if self.statistics is None or self.by_class is None:
            return None
        # Clones, because a reduction over ranks may work in place, and the epoch continues with these sums.
        return {"statistics": reduce(self.statistics.clone()), "by_class": reduce(self.by_class.clone())}

    def load(self, state: Mapping[str, Tensor] | None) -> None:
        """Continue from a state; on one rank alone, because it holds what all of them had."""
        self.statistics = state["statistics"] if state else None
        self.by_class = state["by_class"] if state else None


class CompSegNet(pl.LightningModule):
    """Segmenter plus comparative head, trained from sample labels (paper, 3.1 and Fig. 2).

    Args:
        segmenter: From `(B, C, H, W)` to logits `(B, M, H, W)`.
        head: Pools the activation map over the tissue and transfers it: x and o.
        objective: The loss on them.
        preprocess: From raw values to network input; its standardisation is fitted before training.
        pseudo_labels: If it supervises, marks the region that the objective takes for truth; may give the network the
            contrast of each sample; fitted before training. None, or one that does not supervise: truth, if any, comes
            with the batch.
        optimizer: Makes an optimizer of parameters.
        scheduler: Makes a schedule of an optimizer, stepped each batch; `total_steps` is filled in where it is asked
            for.
        augmentations: Applied to training batches in order.
        seed: Of the augmentation.
        config: The resolved configuration, plain values; travels in the checkpoint.

    Attributes:
        memory_format: Of the segmenter's input.
        schedule_steps: Length of the schedule, if it has one.
        epochs_before: Those that the checkpoint which training continues from was to have.
        sees_whole_samples: Whether a sample is the same pixels in each epoch, so that its background is found once.
    """

    memory_format = torch.channels_last
    schedule_steps: float | None = None
    epochs_before: int | None = None
    sees_whole_samples = False

    def __init__(
        self,
        segmenter: nn.Module,
        head: ComparativeHead,
        objective: Objective,
        preprocess: Preprocess,
        optimizer: OptimizerFactory,
        pseudo_labels: PseudoLabels | None = None,
        scheduler: SchedulerFactory | None = None,
        augmentations: Mapping[str, Augmentation] | None = None,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.segmenter, self.head, self.objective, self.preprocess = segmenter, head, objective, preprocess
        self.pseudo_labels, self.views = pseudo_labels, Views(segmenter, objective, seed)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.augmentations, self.seed, self.config = dict(augmentations or {}), seed, dict(config or {})
        self.epoch_sums = {"train": EpochSums(), "val": EpochSums()}
        self.backgrounds: dict[str, dict[int, Tensor]] = {"train": {}, "val": {}}
        self.marks: dict[str, dict[tuple[int, int, int], Tensor]] = {"train": {}, "val": {}}

    def forward(self, image: Tensor, tissue: Tensor) -> HeadOutput:
        """Raw image `(B, C, H, W)` and tissue `(B, 1, H, W)` to map, pooled activation and output."""
        return self._of_input(self.network_input(image, tissue), tissue)

    def compare_by(self, head: ComparativeHead, objective: Objective, config: Mapping[str, Any]) -> None:
        """Take another head and objective of the same kind, before training; `config` is the configuration of all."""
        self.head, self.objective, self.config = head, objective, dict(config)

    def start_at(self, prior: float) -> None:
        """Let the untrained network have another activation everywhere, in (0, 1); and the average of its weights."""
        move_start(self.segmenter, prior)
        move_start(self.views, prior)

    @property
    def contrasts(self) -> FisherPseudoLabels | None:
        """What computes the contrasts that the network reads; None: it reads the preprocessed samples."""
        return self.pseudo_labels if isinstance(self.pseudo_labels, FisherPseudoLabels) else None

    @property
    def trains_on_pseudo_labels(self) -> bool:
        """Whether the objective takes a pseudo-labeller's marks for truth."""
        return self.pseudo_labels is not None and self.pseudo_labels.supervises

    def network_input(self, image: Tensor, tissue: Tensor) -> Tensor:
        """Raw `(B, C, H, W)` of whole samples and tissue `(B, 1, H, W)` to what the segmenter reads, of that shape."""
        with torch.autocast(self.device.type, enabled=False):  # bf16 has 8 bits
            return network_input(self.preprocess, self.contrasts, image, tissue)

    def _contrast(self, image: Tensor, tissue: Tensor) -> Tensor:
        if self.contrasts is None:
            return image
        # bf16 has 8 bits: of the difference of two spectra that are much alike it would leave little.
        with torch.autocast(self.device.type, enabled=False):
            return self.contrasts.contrast(image, tissue)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The objective of one balanced batch, `loss`, and for callbacks the pooled activation `x (B,)`."""
        del batch_idx
        statistics, output = self._statistics(self._prepared(batch, self.augmentations, "train"), "train")
        # The mean over all ranks comes first: a root or a clamp in `finish` would be another one on each rank.
        return {"loss": self.objective.finish(mean_over_ranks(statistics.mean(0))), "x": output.x.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, HeadOutput]:
        """Collects: the loss is formed over all validation samples at the epoch's end; callbacks get the output."""
        del batch_idx
        return {"head": self._statistics(self._prepared(batch, {}, "val"), "val")[1]}

    def on_train_epoch_end(self) -> None:
        """Log `train/...`."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log `val/...`."""
        self._log_epoch("val")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let an average of the weights follow."""
        super().optimizer_step(*args, **kwargs)
        # Here and not after each batch: where gradients are accumulated, weights change less often.
        self.views.follow(self.segmenter)

    def configure_model(self) -> None:
        """Leave every device a share of the network, where the trainer's strategy is made for that.

        Raises:
            CompsegError: If an average of the network is kept too, which would have to be shared alike.
        """
        if self.device_mesh is not None:
            if self.views.ema is not None:
                raise CompsegError(
                    "trainer.strategy=fsdp: cannot be combined with regulariser=mean_teacher; drop one of the two"
                )
            for part in (self.segmenter, self.head):
                shard(part, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and, stepped each batch, its schedule."""
        optimizer = self.make_optimizer(self._parameter_groups())
        for group in optimizer.param_groups:
            group["lr"] *= group.get("rate", 1.0)
        if self.make_scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches  # infinite for trainer.max_epochs=-1
        scheduler = self.make_scheduler(optimizer, total_steps=int(steps) if math.isfinite(steps) else None)
        self.schedule_steps = steps if getattr(scheduler, "total_steps", None) == steps else None
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """What is trained; what a segmenter calls its `encoder` at a rate of its own, if it names one.

        The rates are shares of the optimizer's, by which a schedule multiplies too.
        """
        # Without those of the averaged network, which follows and is not trained.
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        rate, encoder = (getattr(self.segmenter, name, None) for name in ("encoder_rate", "encoder"))
        if rate is None or encoder is None:
            return [{"params": trained}]
        slow = set(encoder.parameters())
        groups = ([each for each in trained if (each in slow) is of_encoder] for of_encoder in (False, True))
        return [{"params": group, "rate": share} for group, share in zip(groups, (1.0, rate), strict=True) if group]

    def on_train_start(self) -> None:
        """Where a run is resumed for another number of epochs, or on other devices, give its schedule that length."""
        make, steps, epochs = self.make_scheduler, self.schedule_steps, self.trainer.max_epochs
        if make is None or steps is None or not epochs or not self.epochs_before:
            return
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler = replanned(config.scheduler, make, int(steps), self.epochs_before / epochs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the resolved configuration beside the weights, and what an unfinished epoch has summed up so far."""
        checkpoint["config"] = self.config
        checkpoint["epoch_sums"] = self.epoch_sums["train"].state(self._over_ranks)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the sums of the epoch, and know how long training was to be."""
        self.epochs_before = checkpoint.get("config", {}).get("trainer", {}).get("max_epochs")
        if self.trainer.is_global_zero:
            self.epoch_sums["train"].load(checkpoint.get("epoch_sums"))

    @torch.no_grad()
    def _prepared(self, batch: Batch, augmentations: Mapping[str, Augmentation], split: str = "train") -> Batch:
        """The batch augmented, its image the network's input, its truth the pseudo-labels where these supervise.

        What augmentation merely moves about is made ready first, once for both.
        """
        is_geometric = all(augmentation.is_geometric for augmentation in augmentations.values())
        sees_pixels = self.pseudo_labels is None or self.pseudo_labels.contrasts
        if is_geometric and sees_pixels and by_pixels(batch["image"]):
            return self._prepared_by_pixels(batch, augmentations, split)

        def augmented(batch: Batch) -> Batch:
            return augment(batch, augmentations, self.seed, self.current_epoch)

        def preprocessed(batch: Batch) -> Batch:
            return {**batch, "image": self.preprocess(batch["image"], batch["tissue"])}

        def contrasted(batch: Batch) -> Batch:
            return {**batch, "image": self._contrast(batch["image"], batch["tissue"])}

        if is_geometric:
            return augmented(contrasted(self._with_pseudo_labels(preprocessed(batch), split)))
        if self.trains_on_pseudo_labels:
            # Before augmentation: what the pseudo-labeller marks must not depend on a jitter that it was not fitted to.
            batch = {**self._with_pseudo_labels(preprocessed(batch), split), "image": batch["image"]}
        return contrasted(preprocessed(augmented(batch)))

    def _prepared_by_pixels(self, batch: Batch, augmentations: Mapping[str, Augmentation], split: str) -> Batch:
        """The same in one pass over the tissue pixels of a batch in host memory."""
        labeller, tissue = self.contrasts if self.trains_on_pseudo_labels else None, batch["tissue"]
        # The numbers of the pixels are moved, not the pixels, which are hundreds of values each.
        numbered: Batch = {**batch, "image": torch.arange(tissue.numel()).view(tissue.shape)}
        moved = augment(numbered, augmentations, self.seed, self.current_epoch)
        with torch.autocast(self.device.type, enabled=False):
            background = self._backgrounds(batch, split)
            given, score = input_by_pixels(
                self.preprocess, batch["image"], moved["tissue"], background, labeller, moved["image"]
            )
        if labeller is not None:
            disease = (batch["label"] > 0)[:, None, None, None]
            moved = {**moved, "truth": labeller.marked(score, moved["tissue"]) & disease}
        return {**moved, "image": given}

    def _backgrounds(self, batch: Batch, split: str) -> Tensor:
        """What is subtracted from each sample, `(B, C)`."""
        of_one = partial(backgrounds_of, self.preprocess, self.contrasts)
        return self._once(self.backgrounds[split], batch["index"], batch, of_one)

    def _once(
        self,
        known: dict[Any, Tensor],
        keys: Sequence[Any],
        batch: Batch,
        of_one: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """What belongs to the image and the tissue of each sample, `(B, ...)`, by its key; found once if it can be."""
        known = known if self.sees_whole_samples else {}
        for place, key in enumerate(keys):
            if key not in known:
                known[key] = of_one(batch["image"][place : place + 1], batch["tissue"][place : place + 1])
        return torch.cat([known[key] for key in keys])

    def _with_pseudo_labels(self, batch: Batch, split: str) -> Batch:
        """A preprocessed batch with the pseudo-labeller's marks for truth, if the objective learns from them."""
        if self.pseudo_labels is None or not self.trains_on_pseudo_labels:
            return batch
        with torch.autocast(self.device.type, enabled=False):
            if isinstance(self.pseudo_labels, EncoderPseudoLabels):
                coarse = self._coarse_marks(self.pseudo_labels, batch, split)
                return {**batch, "truth": self.pseudo_labels.on_tissue(coarse, batch["tissue"], batch["label"])}
            return {**batch, "truth": self.pseudo_labels(batch["image"], batch["tissue"], batch["label"])}

    def _coarse_marks(self, labeller: EncoderPseudoLabels, batch: Batch, split: str) -> Tensor:
        """What is marked of each sample, cell by cell, `(B, 1, h, w)`: the encoder sees a whole sample but once."""
        # By its size as well: it is padded to the largest sample of its batch, which is another one in each epoch.
        keys = [(index, *batch["image"].shape[-2:]) for index in batch["index"]]
        return self._once(self.marks[split], keys, batch, lambda image, _: labeller.coarse(image))

    def _statistics(self, batch: Batch, stage: str) -> tuple[Tensor, HeadOutput]:
        # Copies nothing in channels_last, as samples are stored and the loader hands them out.
        image = batch["image"].contiguous(memory_format=self.memory_format)
        # Validation always has the views of epoch 0: its metrics then differ by the weights alone.
        views = self.views(self.segmenter, image, batch["index"], self.current_epoch if self.training else 0)
        output = self._of_input(image, batch["tissue"])._replace(**views)
        with torch.autocast(self.device.type, enabled=False):  # half precision is for the network alone
            statistics = self.objective.statistics(output, batch["label"], truth=batch.get("truth"))
        self.epoch_sums[stage].add(statistics, output.x, batch["label"])
        return statistics, output

    def _of_input(self, image: Tensor, tissue: Tensor) -> HeadOutput:
        output: HeadOutput = self.head(self.segmenter(image), tissue)
        return output

    def _log_epoch(self, stage: str) -> None:
        statistics, x = self.epoch_sums[stage].means(self._over_ranks)
        with torch.no_grad():
            loss = self.objective.finish(statistics)
        values = {"loss": loss, "x_healthy": x[0], "x_disease": x[1]}
        # Already the same on all ranks, so nothing is left to synchronise.
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, prog_bar=True, rank_zero_only=False)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        reduced: Tensor = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return reduced
