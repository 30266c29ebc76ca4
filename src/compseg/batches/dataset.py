"""The samples of one split, read into batches: whole, or as crops of samples that are larger than a step can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from compseg.batches.cache import BatchMemory, Parts, SampleCache, sent
from compseg.batches.sampler import BatchIndex
from compseg.cohort import Cohort
from compseg.cohort.layout import Array
from compseg.errors import CompsegError
from compseg.samples import SampleInfo, Window

# The first number of each crop's seed: it must not share its random numbers with its sample's augmentation.
CROP_STREAM = 1
STRIP = 1024  # rows of a tissue mask in memory at a time, about


class Batch(TypedDict):
    """B samples side by side; smaller ones are padded at the lower right with what is not tissue.

    Attributes:
        image: `(B, C, H, W)` as stored, in channels_last memory; after preprocessing the network's input.
        tissue: `(B, 1, H, W)` bool, pixels that count.
        truth: `(B, 1, H, W)` bool, or pseudo-labels; where the objective asks for it.
        label: `(B,)` float32, 1 = disease.
        index: Places of the samples in the split; on the host, where they seed augmentation without waiting for the
            device.
    """

    image: Tensor
    tissue: Tensor
    truth: NotRequired[Tensor]
    label: Tensor
    index: list[int]


class CohortSplit(Dataset[Batch]):
    """The samples of one split; a `BatchIndex` gets the whole batch, read into its place in memory.

    Args:
        cohort: Opened cohort; pickles to workers, where it opens its own arrays.
        infos: The split's samples.
        with_truth: Whether to hand out truth masks (`method=supervised` alone asks).
        crops: Where to cut samples; None: they are taken whole.
        cache: Device on which to keep what was read; None: it is read each time.
        pinned: Whether batches in host memory continue to a CUDA device.

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

    def __getitem__(self, asked: BatchIndex) -> Batch:
        """Read or gather a batch."""
        indices, windows = asked.indices, [self._window(index, asked.epoch) for index in asked.indices]
        stacks = {part: self._stacked(part, indices, windows) for part in self.parts}
        batch = Batch(
            image=stacks["image"].permute(0, 3, 1, 2),
            tissue=stacks["tissue"][:, None],
            # A list as index would have the host wait for the device (docs/research/lab-log.md).
            label=self.labels[sent(indices, self.device)],
            index=list(indices),
        )
        if "truth" in stacks:
            batch["truth"] = stacks["truth"][:, None]
        return batch

    def _window(self, index: int, epoch: int | None) -> Window | None:
        return self.crops.window(self.cohort, self.infos[index].name, index, epoch) if self.crops else None

    def _stacked(self, part: str, indices: Sequence[int], windows: Sequence[Window | None]) -> Tensor:
        """One part of the samples, `(B, H, W, ...)`."""
        sizes = [self.sizes[index] for index in indices]
        alike = len(set(sizes)) == 1
        if self.cache and alike and not any(windows):
            return self.cache.gather(part, indices)
        dtype, rest = self.parts[part]
        height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
        stack = self.memory.empty((len(indices), height, width, *rest), dtype, self.device)
        if not alike:
            # Padding must not be tissue, and memory that is used again holds an earlier batch.
            stack.zero_()
        for slot, index, window, (h, w) in zip(stack, indices, windows, sizes, strict=True):
            if self.cache:
                slot[:h, :w].copy_(self.cache.picture(part, index)[window or ...])
            else:
                self._read(slot[:h, :w].numpy(), part, index, window)
        return stack

    def _read(self, out: Array, part: str, index: int, window: Window | None = None) -> None:
        info = self.infos[index]
        if part == "truth" and not self.cohort.has_truth(info.name):
            if info.label:
                raise CompsegError(
                    f"{info.name}: method=supervised needs truth, and this disease sample has none; "
                    "give masks or choose another method"
                )
            # A healthy sample has no diseased region, so it needs no mask.
            out[...] = False
        else:
            self.cohort.read_into(out, info.name, part, window)


def parts_of(cohort: Cohort, with_truth: bool) -> Parts:
    """What a batch has of each sample."""
    dtype: torch.dtype = getattr(torch, cohort.dtype)
    masks = ("tissue", "truth") if with_truth else ("tissue",)
    return {"image": (dtype, (cohort.channels.count,)), **{mask: (torch.bool, ()) for mask in masks}}


class Crops:
    """Chooses a square that holds tissue, sampled from `(seed, sample, epoch)`.

    Each tissue pixel has about the same chance to be in it. No more is kept of a sample than a coarse count of its
    tissue.

    Args:
        edge: Of the square, pixels; a smaller sample is taken whole.
        seed: Of the samplings.

    Raises:
        CompsegError: The edge is no number of pixels.
    """

    def __init__(self, edge: int, seed: int) -> None:
        if edge < 2:
            raise CompsegError(f"data.crop={edge}: expected the edge of a square in pixels, at least 2")
        # Cells of half an edge: a square holds all of the cell that it was chosen for, and can still move by as much.
        self.edge, self.cell, self.seed = edge, edge // 2, seed
        self._cells: dict[str, Array] = {}

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """`(h, w)` of what is cut from an image of `shape`."""
        return min(self.edge, shape[0]), min(self.edge, shape[1])

    def window(self, cohort: Cohort, name: str, index: int, epoch: int | None) -> Window | None:
        """Rows and columns of a sample.

        Args:
            cohort: Holds the sample.
            name: The sample.
            index: Its number in the split.
            epoch: Of training; None: the same square each time.

        Returns:
            The window, or None for the whole sample.
        """
        shape = cohort.shape(name)[:2]
        size = self.size(shape)
        if size == shape:
            return None
        if name not in self._cells:
            self._cells[name] = tissue_cells(cohort, name, self.cell)
        # `None` has number 0 to itself, so that it is not the crop of the first epoch as well.
        generator = np.random.default_rng((CROP_STREAM, self.seed, index, 0 if epoch is None else epoch + 1))
        cells = self._cells[name]
        # A sample without tissue has nothing to weigh by, but its batch still needs a crop of it.
        weights = cells.ravel() if cells.any() else np.ones(cells.size)
        cell = divmod(int(generator.choice(cells.size, p=weights / weights.sum())), cells.shape[1])
        rows, columns = (self._around(*of_axis, generator) for of_axis in zip(cell, size, shape, strict=True))
        return rows, columns

    def _around(self, cell: int, size: int, length: int, generator: np.random.Generator) -> slice:
        """`size` of `length` pixels, which hold the whole cell."""
        start, end = cell * self.cell, min((cell + 1) * self.cell, length)
        first = int(generator.integers(max(0, end - size), min(start, length - size), endpoint=True))
        return slice(first, first + size)


def tissue_cells(cohort: Cohort, name: str, cell: int) -> Array:
    """How many tissue pixels each cell of `cell` x `cell` pixels holds; reads the mask strip by strip."""
    height, width, _ = cohort.shape(name)
    strip = cell * max(1, STRIP // cell)
    counts = []
    for top in range(0, height, strip):
        mask = cohort.tissue(name, (slice(top, min(top + strip, height)), slice(0, width)))
        rows = np.add.reduceat(mask, range(0, mask.shape[0], cell), axis=0, dtype=np.int64)
        counts.append(np.add.reduceat(rows, range(0, width, cell), axis=1))
    return np.concatenate(counts)
