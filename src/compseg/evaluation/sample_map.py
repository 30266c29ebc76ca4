"""What is judged: one test sample with its map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Mask, SampleInfo


@dataclass(frozen=True)
class SampleMap:
    """A sample's activation map with all that is needed to judge it.

    Attributes:
        info: Name, label, group and patient.
        activation: `(H, W)` float32 in [0, 1], 0 outside the tissue.
        tissue: `(H, W)` bool, pixels that count.
        truth: `(H, W)` bool, the expert's disease region; None where there is none. A healthy sample of a cohort with
            truth has an empty one.
        output: o, the head's output.
        pooled: x, what the pool made of the activation.
    """

    info: SampleInfo
    activation: NDArray[np.float32]
    tissue: Mask
    truth: Mask | None
    output: float
    pooled: float
