"""The loader: an epoch through it against the same bytes read, decoded or copied in a bare loop, and how it grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Row, cohort_of_spots, growth, side_by_side
from hydra.utils import instantiate
from step import spots

from compseg.batches.datamodule import CohortData
from compseg.cohort import Cohort, prepare
from compseg.config import compose
from compseg.samples import SampleInfo

BATCH, GROWTH = 8, 16


def measure(folder: Path) -> list[Row]:
    cohort = cohort_of_spots(folder)
    return [_streamed(cohort), _kept(spots(folder), rounds=40), _kept(cohort, rounds=200), *_growth(folder)]


def _loader(cohort: Cohort, cache: str, batch: int = BATCH):
    data = CohortData(str(cohort.path), batch_size=min(batch, BATCH), cache=cache, workers=0)
    data.setup()
    loader = data.train_dataloader()
    # Whatever an epoch draws, both sides handle the same samples.
    order = [data.train.infos[index].name for draw in loader.sampler for index in draw.indices]
    return loader, order


def _streamed(cohort: Cohort) -> Row:
    loader, order = _loader(cohort, "none")

    def bare():
        for name in order:
            cohort.image(name), cohort.tissue(name)

    ours, theirs = side_by_side(_epoch(loader), bare, rounds=40)
    return Row(f"epoch of {_what(cohort, order)}, cache=none", ours, "read and decode alone", theirs)


def _kept(cohort: Cohort, rounds: int) -> Row:
    loader, order = _loader(cohort, "ram")
    kept = {name: (cohort.image(name), cohort.tissue(name)) for name in order}

    def bare():
        for start in range(0, len(order), BATCH):
            for part in (0, 1):
                np.stack([kept[name][part] for name in order[start : start + BATCH]])

    ours, theirs = side_by_side(_epoch(loader), bare, rounds)
    return Row(f"later epoch of {_what(cohort, order)}, cache=ram", ours, "copy of the batches alone", theirs)


def _what(cohort: Cohort, order: list[str]) -> str:
    return f"{len(order)} spots of {' x '.join(map(str, cohort.shape(order[0])))}"


def _growth(folder: Path) -> list[Row]:
    """GROWTH times the samples, and GROWTH times the pixels of each, against as many small epochs."""
    rows = []
    for what, small, grown in (
        ("samples", (BATCH, 64), (GROWTH * BATCH, 64)),
        ("pixels a sample", (2, 256), (2, 1024)),  # large enough for the time that every sample costs not to show
    ):
        one, all_ = (_epoch(_loader(_spots(folder, *plan), "none", batch=plan[0])[0]) for plan in (small, grown))
        rows.append(growth(f"epoch, {what}", GROWTH, all_, one, rounds=15))
    return rows


def _spots(folder: Path, count: int, size: int) -> Cohort:
    return prepare(Spots(count, size), folder / f"{count}_{size}.zarr", progress=False)


class Spots:
    """Spots of the phantom, as many as are asked for, all of them drawn in an epoch."""

    def __init__(self, count: int, size: int) -> None:
        self.phantom = instantiate(compose("train").data.source, size=size, channels=32)
        self.drawn = self.phantom.infos()[0]
        val = [SampleInfo(f"val{label}", label, split="val") for label in (0, 1)]
        self.samples = [SampleInfo(f"s{i}", i % 2, split="train") for i in range(count)] + val

    def infos(self):
        """All of them."""
        return self.samples

    def read(self, info):
        """The same pixels for each."""
        del info
        return self.phantom.read(self.drawn)

    def channels(self):
        """The phantom's."""
        return self.phantom.channels()

    def provenance(self):
        """The phantom's, and how many."""
        return {**self.phantom.provenance(), "count": len(self.samples)}


def _epoch(loader) -> Callable[[], object]:
    return lambda: [batch["image"].shape for batch in loader]
