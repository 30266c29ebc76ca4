"""The activation above which a pixel counts as disease, stored with the segmenter; `evaluation.thresholds` fits it.

Needs torch and numpy alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Mask

ThresholdOrigin = Literal["truth", "probabilities", "labels", "fallback", "fixed"]
FITTED: tuple[ThresholdOrigin, ...] = ("truth", "probabilities", "labels")


@dataclass(frozen=True)
class Threshold:
    """A threshold and where it came from.

    Attributes:
        value: In [0, 1]; activations strictly greater count as disease.
        how: How it was found, in words for people; nothing is decided by them.
        low: Lower end of its 95 % bootstrap interval; equal to `value` where nothing was fitted.
        high: Upper end.
        origin: How it was found, for programs: `truth`, `probabilities` or `labels` that it was fitted to; `fallback`
            where it should have been fitted to labels and they hold no answer; `fixed` where the maps have no part in
            it.
    """

    value: float
    how: str
    low: float
    high: float
    origin: ThresholdOrigin

    def apply(self, activation: NDArray[np.float32], tissue: Mask) -> Mask:
        """`(H, W)` bool: tissue pixels whose activation exceeds the threshold."""
        # Strictly, so that a map of one value everywhere marks nothing at a threshold of that value.
        return (activation > self.value) & tissue

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Threshold:
        """The inverse of `to_dict`; also reads descriptions from before `origin` was stored."""
        how, low, high = str(plain["how"]), float(plain["low"]), float(plain["high"])
        return cls(float(plain["value"]), how, low, high, plain.get("origin") or _origin_in_words(how, low == high))


def _origin_in_words(how: str, without_interval: bool) -> ThresholdOrigin:
    # The words of the version that stored nothing else; they must not follow later wording.
    fitted = (origin for origin in FITTED if how.startswith(f"fitted to the {origin}"))
    return next(fitted, "fixed" if without_interval else "fallback")
