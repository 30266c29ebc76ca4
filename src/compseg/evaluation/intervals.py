"""The cluster bootstrap: which samples a replicate holds and how often, means over them, and 95 % intervals.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6, 8 and 13. Shapes: N samples, R replicates. A
replicate is a row of weights: how often it holds each sample. Functions of `(R, N)` weights return `(R,)` values, NaN
where undefined; a single row of ones gives the value of the samples themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compseg.samples import SampleInfo

COVERAGE = 0.95
FEWEST_PATIENTS = 5  # a replicate of fewer has so few possible values that its interval is no interval

Floats = NDArray[np.float64]


def resample(infos: Sequence[SampleInfo], replicates: int, seed: int) -> Floats:
    """How often each replicate holds each sample.

    Units are sampled with replacement: patients, so that samples of one patient come and go together, and samples where
    no patient is named, or fewer than `FEWEST_PATIENTS` are. Units with and without a disease sample are sampled
    separately, each as many as there are: splits balance the classes by design, and a replicate without one of them
    would have no ROC.

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
    # `.at`, because `diseased[unit] |= ...` would keep only one sample of each patient.
    np.logical_or.at(diseased, unit, labels == 1)
    generator = np.random.default_rng(seed)
    counts = np.zeros((replicates, len(diseased)))
    for members in (np.flatnonzero(diseased), np.flatnonzero(~diseased)):
        if n := len(members):
            # How often each of n is sampled in n trials is multinomial, so no list of samples is needed.
            counts[:, members] = generator.multinomial(n, np.full(n, 1 / n), size=replicates)
    return counts[:, unit]


def _units(infos: Sequence[SampleInfo]) -> NDArray[np.int64]:
    enough = len({info.patient for info in infos if info.patient}) >= FEWEST_PATIENTS
    # The word is part of the key, because a patient may be named like a sample.
    keys = [("patient", info.patient) if info.patient and enough else ("sample", info.name) for info in infos]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


def percentile_interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of the replicates' values.

    Undefined (NaN) replicates are ignored; the interval is `(nan, nan)` if all are undefined.
    """
    defined = values[np.isfinite(values)]
    if not defined.size:
        return np.nan, np.nan
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def mean(values: Floats, weights: Floats) -> Floats:
    """Weighted mean of `(N,)` values for each of `(R, N)` weights."""
    return ratio(weights @ values, weights.sum(axis=1))


def std(values: Floats, weights: Floats) -> Floats:
    """Standard deviation over the samples of a replicate, with n - 1; NaN where it holds fewer than two."""
    deviations = (values - mean(values, weights)[:, None]) ** 2
    return np.sqrt(ratio((weights * deviations).sum(axis=1), weights.sum(axis=1) - 1))


def ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, element by element; NaN where the whole is not positive."""
    found: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found
