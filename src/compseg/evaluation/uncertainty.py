"""How far the spread of an activation tells where a map is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from compseg.evaluation.curves import SampleMap
from compseg.inference import Threshold
from compseg.inference.spread import Spread

BINS = 8


def errors_by_spread(val: Iterable[tuple[SampleMap, Spread]], threshold: Threshold) -> dict[str, list[Any]] | None:
    """How often pixels are marked wrongly, in bins of about the same number of tissue pixels by their spread.

    Args:
        val: Validation samples with truth, and the spread of each.
        threshold: Above which pixels are marked.

    Returns:
        Mean spread, share that is wrong and number of pixels of each bin; None without samples.
    """
    parts = [
        (spread[item.tissue], (threshold.apply(item.activation, item.tissue) != item.region)[item.tissue])
        for item, spread in val
    ]
    if not parts:
        return None
    spread, wrong = (np.concatenate(each) for each in zip(*parts, strict=True))
    bins = [each for each in np.array_split(np.argsort(spread, kind="stable"), BINS) if len(each)]
    return {
        "spread": [float(spread[each].mean()) for each in bins],
        "wrong": [float(wrong[each].mean()) for each in bins],
        "pixels": [len(each) for each in bins],
    }
