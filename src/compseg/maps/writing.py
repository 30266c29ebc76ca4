"""Maps as files: the activation for programs, an overlay and a mask for people."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from compseg.files import atomic_bytes
from compseg.maps.overlay import overlay
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
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{name}.npy": _npy(activation),
        f"{name}.png": _png(overlay(picture, activation, mask)),
        f"{name}_mask.png": _png(mask * np.uint8(255)),
    }
    for file, content in contents.items():
        atomic_bytes(folder / file, content)
    return [folder / file for file in contents]


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _png(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Pictures.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()
