"""How far an activation may be read as a probability: a reliability curve on validation truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compseg.evaluation.curves import SampleMap, with_truth

BINS = 10
FEWEST = 20  # pixels of a bin; the share in fewer is noise


def reliability_of(val: Sequence[SampleMap]) -> dict[str, list[Any]] | None:
    """Mean activation, share of disease by the truth, and number of tissue pixels in even bins of activation.

    As Murphy and Winkler, J. R. Stat. Soc. C 26:41 (1977).

    Returns:
        None without a validation sample that has truth.
    """
    seen = with_truth(val)
    if not any(item.region.any() for item in seen):
        return None
    activation = np.concatenate([item.activation[item.tissue] for item in seen]).astype(np.float64)
    disease = np.concatenate([item.region[item.tissue] for item in seen])
    place = np.minimum((activation * BINS).astype(int), BINS - 1)
    count, mass, hits = (np.bincount(place, weights, BINS) for weights in (None, activation, disease))
    enough = count >= FEWEST
    mean, share = (total[enough] / count[enough] for total in (mass, hits))
    return {"activation": mean.tolist(), "share": share.tolist(), "pixels": count[enough].astype(int).tolist()}
