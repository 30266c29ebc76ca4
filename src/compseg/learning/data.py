"""Batches from a cohort.

A dataset that reads lazily, a collation that keeps the stored layout, and the DataModule that joins them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compseg.cohort import Cohort, prepare
from compseg.errors import CompsegError
from compseg.learning.sampler import BalancedBatches
from compseg.learning.stopping import deaf_forkserver
from compseg.samples import SampleInfo, Source

Item = dict[str, Any]
Batch = dict[str, Any]


class CohortSplit(Dataset[Item]):
    """The samples of one split, read from the store when asked for.

    Args:
        cohort: Opened cohort; pickles to workers, where it opens its own arrays.
        infos: The split's samples.
        with_truth: Whether to hand out truth masks (the `supervised` ceiling alone asks).
        cached: Keep what was read in memory.
    """

    def __init__(
        self, cohort: Cohort, infos: Sequence[SampleInfo], with_truth: bool = False, cached: bool = False
    ) -> None:
        self.cohort, self.infos, self.with_truth = cohort, list(infos), with_truth
        self._cache: dict[int, Item] | None = {} if cached else None

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: int) -> Item:
        """`image (H, W, C)`, `tissue (H, W)`, `label`, `index` and, on request, `truth (H, W)`."""
        if self._cache is None:
            return self._read(index)
        if index not in self._cache:
            self._cache[index] = self._read(index)
        return self._cache[index]

    def _read(self, index: int) -> Item:
        info = self.infos[index]
        item: Item = {
            "image": self.cohort.image(info.name),
            "tissue": self.cohort.tissue(info.name),
            "label": info.label,
            "index": index,
        }
        if self.with_truth:
            item["truth"] = self._truth(info)
        return item

    def _truth(self, info: SampleInfo) -> Any:
        truth = self.cohort.truth(info.name)
        if truth is None and info.label:
            raise CompsegError(
                f"{info.name}: method=supervised needs truth, and this disease sample has none; "
                "give masks or choose another method"
            )
        return np.zeros(self.cohort.shape(info.name)[:2], bool) if truth is None else truth


def collate(items: Sequence[Item]) -> Batch:
    """Stack samples, smaller ones padded at the lower right with what is not tissue.

    Returns:
        `image (B, C, H, W)` in channels_last memory, `tissue` and `truth (B, 1, H, W)` bool, `label (B,)` float32 and
        `index`, a list that stays on the host, where it seeds augmentation without waiting for the device.
    """
    batch: Batch = {
        "image": _stacked([item["image"] for item in items]).permute(0, 3, 1, 2),
        "tissue": _stacked([item["tissue"] for item in items])[:, None],
        "label": torch.tensor([item["label"] for item in items], dtype=torch.float32),
        "index": [item["index"] for item in items],
    }
    if "truth" in items[0]:
        batch["truth"] = _stacked([item["truth"] for item in items])[:, None]
    return batch


def _stacked(arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    height, width = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
    stack = np.zeros((len(arrays), height, width, *arrays[0].shape[2:]), arrays[0].dtype)
    for slot, array in zip(stack, arrays, strict=True):
        slot[: array.shape[0], : array.shape[1]] = array
    return torch.from_numpy(stack)


def equal_shapes(
    cohort: Cohort, infos: Sequence[SampleInfo], indices: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Batches of samples of one shape each.

    So validation needs no padding and a map does not depend on its neighbours.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index in indices:
        by_shape.setdefault(cohort.shape(infos[index].name), []).append(index)
    return [same[start : start + batch_size] for same in by_shape.values() for start in range(0, len(same), batch_size)]


class CohortData(pl.LightningDataModule):
    """Training and validation batches of a cohort.

    A cohort that does not exist yet is prepared from `source` on first use.

    Args:
        path: The cohort.
        source: Where to prepare it from if it is absent; None: it must exist.
        batch_size: Samples a step and device.
        cache: `ram` keeps decoded samples in memory, `none` reads them each time, `auto` caches what fits into a
            quarter of the free memory.
        workers: Loader processes; `auto`: none where the samples are cached, else one a core up to four.
        seed: Of the shuffles.
        held_out: A group (array, slide, scanner) that takes no part in training; see `compseg.cohort.hold_out`.
        held_out_as: What the group is instead: `test` or `val`.

    Attributes:
        with_truth: Hand out truth masks; set for an objective that needs them, before `setup`.
    """

    with_truth = False

    def __init__(
        self,
        path: str,
        source: Source | None = None,
        batch_size: int = 8,
        cache: str = "auto",
        workers: int | str = "auto",
        seed: int = 0,
        held_out: str | None = None,
        held_out_as: str = "test",
    ) -> None:
        super().__init__()
        self.held_out, self.held_out_as = held_out, held_out_as
        self.path, self.source, self.batch_size, self.seed = Path(path), source, batch_size, seed
        self.cache, self.workers = cache, workers
        self._cohort: Cohort | None = None

    @property
    def cohort(self) -> Cohort:
        """The cohort, opened."""
        if self._cohort is None:
            cohort = Cohort.open(self.path)
            self._cohort = cohort.holding_out(self.held_out, self.held_out_as) if self.held_out else cohort
        return self._cohort

    def prepare_data(self) -> None:
        """Prepare the cohort if it is absent; refuse one that was made with other settings."""
        if self.source is None:
            return
        if not self.path.exists():
            prepare(self.source, self.path)
        made, asked = self.cohort.provenance, self.source.provenance()
        if differing := sorted(key for key in asked if made.get(key) != asked[key]):
            key = differing[0]
            raise CompsegError(
                f"{self.path}: was made with {key}={made.get(key)}, the configuration says {asked[key]}; "
                "delete it or give another data.path"
            )

    def setup(self, stage: str | None = None) -> None:
        """Open both splits."""
        del stage
        self.cached = self._caches()
        self.train, self.val = (
            CohortSplit(self.cohort, self.cohort.split(which), self.with_truth, self.cached)
            for which in ("train", "val")
        )
        for which, split in (("train", self.train), ("val", self.val)):
            if not len(split):
                raise CompsegError(
                    f"{self.path}: no sample in split {which}; give splits in the manifest or in splits.{which}"
                )

    def train_dataloader(self) -> DataLoader[Item]:
        """Balanced, shuffled batches; see `BalancedBatches`."""
        rank, world = self._place()
        labels = [info.label for info in self.train.infos]
        batches = BalancedBatches(labels, self.batch_size, self.seed, rank, world)
        if self.trainer:
            # Lightning tells the epoch to the sampler only when workers have asked it for their first batches.
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            batches.go_on(self.trainer.current_epoch, 0 if progress.is_last_batch else progress.current.ready)
        return self._loader(self.train, batches)

    def val_dataloader(self) -> DataLoader[Item]:
        """Each validation sample exactly once over all ranks: nothing is repeated to fill up."""
        rank, world = self._place()
        if len(self.val) < world:
            raise CompsegError(
                f"{self.path}: {len(self.val)} validation samples for {world} devices; use at most one device a sample"
            )
        indices = range(rank, len(self.val), world)
        return self._loader(self.val, equal_shapes(self.cohort, self.val.infos, indices, self.batch_size))

    def training_tissue(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Image `(C, H, W)` and tissue `(1, H, W)` of each training sample, one at a time.

        They serve for fitting the standardisation.
        """
        for index in range(len(self.train)):
            item = self.train[index]
            yield torch.from_numpy(item["image"]).permute(2, 0, 1), torch.from_numpy(item["tissue"])[None]

    def _loader(self, split: CohortSplit, batches: Any) -> DataLoader[Item]:
        workers = self._workers()
        return DataLoader(
            split,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            # Fork is unsafe beside threaded codecs; forkserver starts clean processes.
            multiprocessing_context=deaf_forkserver() if workers else None,
            persistent_workers=bool(workers),
            prefetch_factor=2 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def _caches(self) -> bool:
        if self.cache != "auto":
            return self.cache == "ram"
        infos = self.cohort.split("train") + self.cohort.split("val")
        size = sum(int(np.prod(self.cohort.shape(info.name))) for info in infos) * np.dtype(self.cohort.dtype).itemsize
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return size < free / 4

    def _workers(self) -> int:
        if self.workers != "auto":
            return int(self.workers)
        return 0 if self.cached else min(4, os.cpu_count() or 1)
