"""The samples of one split, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from compseg.batches.cache import SampleCache
from compseg.batches.crops import Crops
from compseg.batches.memory import BatchMemory, sent
from compseg.batches.sampler import BalancedBatches
from compseg.cohort import Cohort
from compseg.cohort.layout import Array
from compseg.errors import CompsegError
from compseg.samples import SampleInfo, Window

Batch = dict[str, Any]


class BatchIndex(NamedTuple):
    """Which samples are the next batch, and in which epoch: crops are other ones in each; None: the same always."""

    indices: Sequence[int]
    epoch: int | None = None


class BatchIndexSampler(Sampler[BatchIndex]):
    """Batches of indices as draws, which tell the processes that read them the epoch.

    Args:
        batches: Those of training, which know the epoch, or a fixed list.
    """

    def __init__(self, batches: BalancedBatches | Sequence[Sequence[int]]) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Let the next epoch be this one; with a trainer, `ResumableLoader` does it."""
        if isinstance(self.batches, BalancedBatches):
            self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndex]:
        epoch = self.batches.epoch if isinstance(self.batches, BalancedBatches) else None
        return (BatchIndex(indices, epoch) for indices in self.batches)


class CohortSplit(Dataset[Batch]):
    """The samples of one split; asked for a draw, it answers with the batch, read into its place in memory.

    Args:
        cohort: Opened cohort; pickles to workers, where it opens its own arrays.
        infos: The split's samples.
        with_truth: Whether to hand out truth masks (the `supervised` ceiling alone asks).
        crops: Where to cut samples; None: they are taken whole.
        cache: Device on which to keep what was read; None: it is read each time.
        pinned: Whether batches in host memory go on to a CUDA device.

    Attributes:
        sizes: `(H, W)` of each sample as it is handed out.
    """

    def __init__(
        self,
        cohort: Cohort,
        infos: Sequence[SampleInfo],
        with_truth: bool = False,
        crops: Crops | None = None,
        cache: torch.device | None = None,
        pinned: bool = False,
    ) -> None:
        self.cohort, self.infos, self.crops, self.memory = cohort, list(infos), crops, BatchMemory(pinned)
        self.parts = parts_of(cohort, with_truth)
        self.device = cache or torch.device("cpu")
        self.labels = torch.tensor([info.label for info in infos], dtype=torch.float32, device=self.device)
        shapes = [cohort.shape(info.name)[:2] for info in infos]
        self.sizes = [crops.size(shape) if crops else shape for shape in shapes]
        self.cache = SampleCache(shapes, self.parts, self._read, cache, self.memory) if cache else None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.infos)

    def __getitem__(self, draw: BatchIndex) -> Batch:
        """Samples side by side, smaller ones padded at the lower right with what is not tissue.

        Returns:
            `image (B, C, H, W)` in channels_last memory, `tissue` and `truth (B, 1, H, W)` bool, `label (B,)` float32
            and `index`, a list that stays on the host, where it seeds augmentation without waiting for the device.
        """
        windows = [self._window(index, draw.epoch) for index in draw.indices]
        stacks = {part: self._stacked(part, draw.indices, windows) for part in self.parts}
        image = stacks.pop("image").permute(0, 3, 1, 2)
        masks = {part: stack[:, None] for part, stack in stacks.items()}
        return {
            "image": image,
            **masks,
            "label": self.labels[sent(draw.indices, self.device)],
            "index": list(draw.indices),
        }

    def _window(self, index: int, epoch: int | None) -> Window | None:
        return self.crops.window(self.cohort, self.infos[index].name, index, epoch) if self.crops else None

    def _stacked(self, part: str, indices: Sequence[int], windows: Sequence[Window | None]) -> Tensor:
        sizes = [self.sizes[index] for index in indices]
        alike = len(set(sizes)) == 1
        if self.cache and alike and not any(windows):
            return self.cache.gather(part, indices)
        dtype, rest = self.parts[part]
        height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
        stack = self.memory.empty((len(indices), height, width, *rest), dtype, self.device)
        if not alike:
            stack.zero_()
        for slot, index, window, (h, w) in zip(stack, indices, windows, sizes, strict=True):
            self._fill(slot[:h, :w], part, index, window)
        return stack

    def _fill(self, slot: Tensor, part: str, index: int, window: Window | None) -> None:
        if self.cache:
            slot.copy_(self.cache.picture(part, index)[window or ...])
        else:
            self._read(slot.numpy(), part, index, window)

    def _read(self, out: Array, part: str, index: int, window: Window | None = None) -> None:
        info = self.infos[index]
        if part == "truth" and not self.cohort.has_truth(info.name):
            if info.label:
                raise CompsegError(
                    f"{info.name}: method=supervised needs truth, and this disease sample has none; "
                    "give masks or choose another method"
                )
            out[...] = False
        else:
            self.cohort.read_into(out, info.name, part, window)


def parts_of(cohort: Cohort, with_truth: bool) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What a batch has of each sample: dtype, and shape after `(H, W)`."""
    dtype: torch.dtype = getattr(torch, cohort.dtype)
    masks = ("tissue", "truth") if with_truth else ("tissue",)
    return {"image": (dtype, (cohort.channels.count,)), **{mask: (torch.bool, ()) for mask in masks}}
