"""Maps as files: the activation for programs, an overlay and a mask for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from compseg.files import atomic_npy, atomic_open
from compseg.plots.overlay import overlay
from compseg.samples import Image, Mask


def write_map(folder: Path, name: str, picture: Image, activation: NDArray[np.float32], mask: Mask) -> list[Path]:
    """Write `NAME.npy` (activation, float32), `NAME.png` (overlay) and `NAME_mask.png` (0 / 255), each atomically.

    Args:
        folder: Made if absent.
        name: Of the sample.
        picture: What lies under the overlay, see `overlay`.
        activation: `(H, W)` in [0, 1].
        mask: `(H, W)` bool, above the threshold.

    Returns:
        The paths written.
    """
    paths = [folder / f"{name}{ending}" for ending in (".npy", ".png", "_mask.png")]
    atomic_npy(paths[0], activation)
    _write_png(paths[1], overlay(picture, activation, mask))
    _write_png(paths[2], mask * np.uint8(255))
    return paths


def _write_png(path: Path, array: NDArray[np.uint8]) -> None:
    with atomic_open(path) as file:
        Pictures.fromarray(array).save(file, "PNG")
