"""A source of random cubes, for tests and for the processes that tests start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compseg.samples import Channels, SampleArrays, SampleInfo


class MemorySource:
    """`count` samples `s00`, `s01`, ... of a given size; every second one is diseased.

    Args:
        count: Number of samples.
        size: `(H, W, C)`.
        before: Called with each sample before it is read.
        change: Called with each sample and its arrays; returns the arrays to hand out.
        seed: Of the pixels; part of the provenance.
    """

    def __init__(
        self,
        count: int = 6,
        size: tuple[int, int, int] = (20, 24, 3),
        before: Callable[[SampleInfo], None] = lambda _: None,
        change: Callable[[SampleInfo, SampleArrays], SampleArrays] = lambda _, arrays: arrays,
        seed: int = 0,
    ) -> None:
        self.count, self.size, self.before, self.change, self.seed = count, size, before, change, seed
        self.samples = [
            SampleInfo(f"s{i:02d}", i % 2, class_name="NT"[i % 2], split="", patient=f"p{i}", origin=f"s{i:02d}.npy")
            for i in range(count)
        ]

    def infos(self) -> Sequence[SampleInfo]:
        return self.samples

    def read(self, info: SampleInfo) -> SampleArrays:
        self.before(info)
        rng = np.random.default_rng([self.seed, int(info.name[1:])])
        image = rng.normal(size=self.size).astype(np.float32)
        tissue = rng.random(self.size[:2]) < 0.8
        truth = (rng.random(self.size[:2]) < 0.3) & bool(info.label)
        thumbnail = rng.integers(0, 256, (*self.size[:2], 3), dtype=np.uint8) if info.label else None
        return self.change(info, SampleArrays(image, tissue, truth, thumbnail))

    def channels(self) -> Channels:
        return Channels(self.size[2], tuple(float(1800 - 10 * i) for i in range(self.size[2])), "cm-1")

    def provenance(self) -> dict[str, Any]:
        return {"source": "memory", "seed": self.seed, "size": self.size}
