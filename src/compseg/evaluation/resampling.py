"""The cluster bootstrap: which samples a replicate holds, and how often.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6, 8 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compseg.samples import SampleInfo

COVERAGE = 0.95
FEWEST = 5  # patients: draws of fewer are so few that their interval is no interval


def resample(infos: Sequence[SampleInfo], replicates: int, seed: int) -> NDArray[np.float64]:
    """How often each replicate holds each sample.

    Units are drawn with replacement: patients, so that samples of one patient come and go together, and samples where
    no patient is named, or fewer than `FEWEST` are. Units with and without a disease sample are drawn apart, each as
    many as there are: splits balance the classes by design, and a replicate without one of them would have no ROC.

    Args:
        infos: The N samples.
        replicates: Number of replicates R.
        seed: Of the generator; equal seeds give equal replicates.

    Returns:
        `(R, N)` counts, as float64 because they are used as weights.
    """
    unit = _units(infos)
    labels = np.array([info.label for info in infos])
    diseased = np.zeros(unit.max(initial=-1) + 1, dtype=bool)
    np.logical_or.at(diseased, unit, labels == 1)
    generator = np.random.default_rng(seed)
    counts = np.zeros((replicates, len(diseased)))
    for members in (np.flatnonzero(diseased), np.flatnonzero(~diseased)):
        if n := len(members):
            counts[:, members] = generator.multinomial(n, np.full(n, 1 / n), size=replicates)
    return counts[:, unit]


def _units(infos: Sequence[SampleInfo]) -> NDArray[np.int64]:
    enough = len({info.patient for info in infos if info.patient}) >= FEWEST
    keys = [("patient", info.patient) if info.patient and enough else ("sample", info.name) for info in infos]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the replicates' values.

    Undefined (NaN) replicates are left out; the interval is `(nan, nan)` if all are undefined.
    """
    defined = values[np.isfinite(values)]
    if not defined.size:
        return np.nan, np.nan
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
