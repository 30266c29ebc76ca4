"""The loader: an epoch through it against reading and decoding the same bytes in a bare loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import Row, cohort_of_spots, side_by_side

from compseg.learning.data import CohortData


def measure(folder: Path) -> list[Row]:
    cohort = cohort_of_spots(folder)
    rows = []
    for cache in ("none", "ram"):
        data = CohortData(str(cohort.path), batch_size=8, cache=cache, workers=0)
        data.setup()
        loader, copied = data.train_dataloader(), [data.train[index]["image"] for index in range(len(data.train))]
        # Whatever an epoch draws, both sides handle the same samples.
        order = [index for batch in loader.batch_sampler for index in batch]
        epoch = lambda loader=loader: [batch["image"].shape for batch in loader]  # noqa: E731

        def bare(order=order, data=data):
            for index in order:
                name = data.train.infos[index].name
                cohort.image(name), cohort.tissue(name)

        def copy(order=order, copied=copied):
            for start in range(0, len(order), 8):
                np.stack([copied[index] for index in order[start : start + 8]])

        reference = ("read and decode alone", bare) if cache == "none" else ("copy of the batches alone", copy)
        rows.append(Row(f"epoch of {len(order)} spots, cache={cache}", *_timed(epoch, reference)))
    return rows


def _timed(epoch, reference) -> tuple[float, str, float]:
    name, other = reference
    ours, theirs = side_by_side(epoch, other)
    return ours, name, theirs
