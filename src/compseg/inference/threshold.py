"""The activation above which a pixel counts as disease, stored with the segmenter; `evaluation.thresholds` fits it.

Needs torch and numpy alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Mask


@dataclass(frozen=True)
class Threshold:
    """A threshold and where it came from.

    Attributes:
        value: In [0, 1]; activations strictly greater count as disease.
        how: How it was found, in words for the report.
        low: Lower end of its 95 % bootstrap interval; equal to `value` where nothing was fitted.
        high: Upper end.
    """

    value: float
    how: str
    low: float
    high: float

    def apply(self, activation: NDArray[np.float32], tissue: Mask) -> Mask:
        """`(H, W)` bool: tissue pixels whose activation exceeds the threshold."""
        return (activation > self.value) & tissue

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Threshold:
        """The inverse of `to_dict`."""
        return cls(float(plain["value"]), str(plain["how"]), float(plain["low"]), float(plain["high"]))
