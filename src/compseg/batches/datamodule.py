"""Batches from a cohort: the DataModule that joins split, sampler, cache and loader."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from compseg.batches.dataset import Batch, CohortSplit, Crops, parts_of
from compseg.batches.loader import Loader, Prefetcher, ResumableLoader, as_read
from compseg.batches.sampler import BalancedBatches, BatchIndex, BatchIndexSampler, batches_of_equal_shape
from compseg.cohort import Cohort, exists, location, prepare
from compseg.device import usable_cores
from compseg.errors import CompsegError
from compseg.faults.signals import forkserver_with_signals_blocked
from compseg.memory import free_host_memory
from compseg.samples import SampleInfo, Source

CACHES = ("auto", "none", "ram", "device")
SHARE = 0.25  # of the free memory, which `cache=auto` may take


class CohortData(pl.LightningDataModule):
    """Training and validation batches of a cohort.

    A cohort that does not exist yet is prepared from `source` on first use.

    Args:
        path: The cohort.
        source: Where to prepare it from if it is absent; None: it must exist.
        batch_size: Samples per step and device.
        cache: `none` reads samples each time, `ram` keeps them decoded in memory, `device` keeps them on the device
            that trains; `auto` is the last of these that needs no more than a quarter of the free memory.
        workers: Processes that read and decode where nothing is cached; `auto`: one per core, up to four.
        crop: Edge of a square that is cut from larger samples, another one in each epoch, and the same one each time
            of a validation sample; a sample's label then counts as its crop's. None: samples are taken whole.
        seed: Of the shuffles and crops.
        held_out: A group (array, slide, scanner), or a fold, that takes no part in training; see
            `compseg.cohort.hold_out`.
        held_out_as: What the group is instead: `test` or `val`.

    Attributes:
        with_truth: Whether to hand out truth masks, for an objective that needs them; read by `setup`.
    """

    with_truth = False

    def __init__(
        self,
        path: str,
        source: Source | None = None,
        batch_size: int = 8,
        cache: str = "auto",
        workers: int | str = "auto",
        crop: int | None = None,
        seed: int = 0,
        held_out: str | Mapping[str, int] | None = None,
        held_out_as: str = "test",
    ) -> None:
        super().__init__()
        self.held_out, self.held_out_as = held_out, held_out_as
        if cache not in CACHES:
            raise CompsegError(f"data.cache={cache}: expected {', '.join(CACHES)}")
        if batch_size < 2:
            raise CompsegError(f"data.batch_size={batch_size}: a batch needs a sample of each class; give at least 2")
        if workers != "auto" and int(workers) < 0:
            raise CompsegError(f"data.workers={workers}: expected auto or a number of processes, at least 0")
        self.path, self.source, self.batch_size, self.seed = location(path), source, batch_size, seed
        self.cache, self.workers = cache, workers
        self.crops = Crops(crop, seed) if crop else None
        self._cohort: Cohort | None = None
        self._opened_for: tuple[torch.device, bool] | None = None

    @staticmethod
    def unread(node: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Arguments that do nothing beside the others."""
        found = {}
        if node.get("held_out") is None:
            found["held_out_as"] = ("no group is held out", "give data.held_out")
        if node.get("cache") in ("ram", "device"):
            found["workers"] = (f"data.cache={node['cache']} leaves nothing to read", "give data.cache=none")
        return found

    @property
    def cohort(self) -> Cohort:
        """The cohort, opened."""
        if self._cohort is None:
            # On first use: where there is a source, `prepare_data` may have to make the cohort first.
            self._cohort = Cohort.open(self.path).holding_out(self.held_out, self.held_out_as)
        return self._cohort

    def prepare_data(self) -> None:
        """Prepare the cohort if it is absent; refuse one that was made with other settings."""
        if self.source is None:
            return
        if not exists(self.path):
            prepare(self.source, self.path)
        made, asked = self.cohort.provenance, self.source.provenance()
        if differing := sorted(key for key in asked if made.get(key) != asked[key]):
            key = differing[0]
            raise CompsegError(
                f"{self.path}: was made with {key}={made.get(key)}, the configuration says {asked[key]}; "
                "delete it or give another data.path"
            )

    def setup_for(self, trainer: pl.Trainer, *, seed: int, with_truth: bool) -> None:
        """Set up for a trainer before its `fit`, so that samples that are read for fitting are kept where it trains.

        Args:
            trainer: Of this rank.
            seed: Of the shuffles, in place of the one given before.
            with_truth: Whether to hand out truth masks.
        """
        self.trainer, self.seed, self.with_truth = trainer, seed, with_truth
        # Each attempt of a run comes here with a seed of its own; samples that are cached serve all of them.
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open both splits; called again, as Lightning does, it keeps what is cached."""
        del stage
        device = self._device()
        if (device, self.with_truth) == self._opened_for:
            return
        self._opened_for = (device, self.with_truth)
        infos = [self.cohort.split(which) for which in ("train", "val")]
        self.cached, pinned = self._cache_device(infos[0] + infos[1]), device.type == "cuda"
        self.train, self.val = (
            CohortSplit(self.cohort, each, self.with_truth, self.crops, self.cached, pinned) for each in infos
        )
        for which, split in (("train", self.train), ("val", self.val)):
            if not len(split):
                raise CompsegError(
                    f"{self.path}: no sample in split {which}; give splits in the manifest or in splits.{which}"
                )

    def train_dataloader(self) -> DataLoader[Batch] | Prefetcher | ResumableLoader:
        """Balanced, shuffled batches; see `BalancedBatches`."""
        rank, world = self._rank_and_world()
        labels = [info.label for info in self.train.infos]
        batches = BalancedBatches(labels, self.batch_size, self.seed, rank, world)
        loader = self._loader(self.train, batches)
        return ResumableLoader(loader, batches, self.trainer) if self.trainer else loader

    def val_dataloader(self) -> DataLoader[Batch] | Prefetcher:
        """Each validation sample exactly once over all ranks: none is repeated to fill up."""
        rank, world = self._rank_and_world()
        if len(self.val) < world:
            raise CompsegError(
                f"{self.path}: {len(self.val)} validation samples for {world} devices; use at most one device a sample"
            )
        # Lightning's sampler would repeat samples until all ranks have as many, and count them twice in every metric.
        mine = range(rank, len(self.val), world)
        return self._loader(self.val, batches_of_equal_shape(self.val.sizes, mine, self.batch_size))

    def training_tissue(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Image `(C, H, W)` and tissue `(1, H, W)` of each training sample, or of a crop of it, on `fitting_device`.

        One at a time: they serve for fitting the standardisation and the pseudo-labeller.
        """
        for index in range(len(self.train)):
            batch = self.train[BatchIndex([index])]
            yield batch["image"][0].to(self.fitting_device), batch["tissue"][0].to(self.fitting_device)

    @property
    def fitting_device(self) -> torch.device:
        """Where to fit before training: the GPU that trains, else the host, because Apple's lacks float64."""
        device = self._device()
        return device if device.type == "cuda" else torch.device("cpu")

    def _loader(self, split: CohortSplit, batches: BalancedBatches | list[list[int]]) -> DataLoader[Batch] | Prefetcher:
        workers, device = self._workers(), self._device()
        if workers:
            # The server imports once what each worker would import for itself, some ten seconds each.
            multiprocessing.get_context("forkserver").set_forkserver_preload([CohortSplit.__module__])
        loader = Loader(
            split,
            batch_size=None,  # the split joins a batch by itself
            sampler=BatchIndexSampler(batches),
            collate_fn=as_read,
            num_workers=workers,
            # Fork is unsafe beside threaded codecs; forkserver starts clean processes.
            multiprocessing_context=forkserver_with_signals_blocked() if workers else None,
            # torch refuses the next two without workers; workers stay, because each takes seconds to start.
            persistent_workers=bool(workers),
            prefetch_factor=2 if workers else None,
            pin_memory=bool(workers) and device.type == "cuda",  # what this process reads itself is pinned already
        )
        return loader if device.type == "cpu" or split.device == device else Prefetcher(loader, device)

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _device(self) -> torch.device:
        """The one that trains; the host where there is no trainer yet."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _cache_device(self, infos: Sequence[SampleInfo]) -> torch.device | None:
        """Where samples are kept; None: nowhere."""
        device, host = self._device(), torch.device("cpu")
        if self.cache != "auto":
            return {"none": None, "ram": host, "device": device}[self.cache]
        size = decoded_size(self.cohort, infos, self.with_truth)
        # A device belongs to one rank; the host's memory is shared by all ranks on it, and each keeps its own copy.
        # The device comes first: batches of what lies there are gathered and augmented without leaving it.
        free = {device: free_memory(device), host: free_memory(host) // self._local_ranks()}
        return next((place for place in free if size <= free[place] * SHARE), None)

    def _local_ranks(self) -> int:
        return self.trainer.num_devices if self.trainer else 1

    def _workers(self) -> int:
        if self.cached:
            return 0
        if self.workers != "auto":
            return int(self.workers)
        return max(1, min(4, usable_cores() // self._local_ranks()))


def decoded_size(cohort: Cohort, infos: Sequence[SampleInfo], with_truth: bool = False) -> int:
    """Bytes that samples take when they are kept."""
    per_pixel = sum(dtype.itemsize * prod(rest) for dtype, rest in parts_of(cohort, with_truth).values())
    return per_pixel * sum(prod(cohort.shape(info.name)[:2]) for info in infos)


def free_memory(device: torch.device) -> int:
    """Bytes that may still be used on a device; on the host, those that system and job allow."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_host_memory()
