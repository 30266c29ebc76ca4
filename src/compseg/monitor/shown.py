"""A validation sample as the pictures of an epoch show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Image, Mask, SampleInfo


@dataclass(frozen=True)
class Shown:
    """One sample and its map.

    Attributes:
        info: Name and label.
        image: `(H, W, C)` as stored.
        thumbnail: `(h, w, 3)` uint8 for people, or None.
        activation: `(H, W)` in [0, 1].
        tissue: `(H, W)` bool.
        truth: `(H, W)` bool, or None where nobody drew one.
        x: Pooled activation.
    """

    info: SampleInfo
    image: Image
    thumbnail: NDArray[np.uint8] | None
    activation: NDArray[np.float32]
    tissue: Mask
    truth: Mask | None
    x: float

    @property
    def picture(self) -> Image:
        """What people look at: the reference, else the image."""
        return self.image if self.thumbnail is None else self.thumbnail
