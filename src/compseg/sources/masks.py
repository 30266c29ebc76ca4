"""Which pixels a mask marks: one rule for tissue and truth, from label images, pictures and MATLAB alike.

0, black and transparent are outside. One other value is inside. What cannot be meant as a mask is refused;
docs/reference/files.md has the rule as a table.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError, require
from compseg.samples import Mask
from compseg.sources.pictures import Pixels

Labels = NDArray[Any]

MOST = 8  # values beside 0: people outline fewer classes; blurred edges, probabilities and numbered regions have more


def labels_of(path: Path, pixels: Pixels) -> Labels:
    """The label of each pixel, `(H, W)`: its value, its index in a palette, or the number 0xRRGGBB of its colour.

    Raises:
        CompsegError: It is no mask: JPEG, several channels, or black cannot be told from outside.
    """
    require(not pixels.lossy, f"{path}: JPEG blurs the edges of a mask; save it as PNG")
    labels = pixels.values
    if labels.ndim == 3 and labels.shape[2] == 1:
        labels = labels[..., 0]
    if labels.ndim == 3 and labels.shape[2] == 3 and labels.dtype.kind in "ui":
        labels = _colours(labels)
    if labels.ndim != 2 or 0 in labels.shape:
        raise CompsegError(f"{path}: expected a mask (H, W), found {labels.shape}")
    if pixels.opaque is not None:
        labels = np.where(pixels.opaque, labels, 0)
        if pixels.opaque.any() and not pixels.opaque.all() and not labels.any() and pixels.palette is None:
            raise CompsegError(f"{path}: black on a transparent ground; save it with white inside and black outside")
    if pixels.palette is not None:
        _check_palette(path, pixels, labels)
    return labels


def _colours(pixels: Labels) -> Labels:
    """Grey as its value, other colours as one number."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    bits = 8 * pixels.dtype.itemsize
    return np.asarray(np.where((red == green) & (green == blue), red, red << 2 * bits | green << bits | blue))


def _check_palette(path: Path, pixels: Pixels, labels: Labels) -> None:
    """Refuse a palette in which index and colour disagree on what is outside."""
    seen = np.ones(labels.shape, bool) if pixels.opaque is None else pixels.opaque
    used = np.unique(pixels.values[seen])
    black = ~pixels.palette[used].any(axis=1)  # type: ignore[index]
    if (black != (used == 0)).any():
        raise CompsegError(
            f"{path}: index 0 of its palette is not black, or another one is, so inside cannot be told from outside; "
            "save it in grey with 0 outside"
        )


def mask_of(path: Path, labels: Labels, inside: Collection[int] | None = None) -> Mask:
    """The pixels that a mask marks.

    Args:
        path: Named in errors.
        labels: `(H, W)`.
        inside: The values that are inside; None: all but 0, where that can be meant.

    Returns:
        `(H, W)` bool.

    Raises:
        CompsegError: The values cannot be meant as a mask.
    """
    found = np.unique(labels)
    finite = np.isfinite(found).all()
    require(finite, f"{path}: NaN or infinite values in a mask; save 0 outside and 1 inside")
    if inside is not None:
        return np.isin(labels, list(inside))
    marks, few = found[found != 0], f"{in_words(found[:3])} ... {found[-1]:g}"
    require(found[0] >= 0, f"{path}: {found[0]:g} in a mask; save 0 outside and 1 inside{_OR_SAY}")
    if len(marks) > 1 and (marks % 1 != 0).any():
        raise CompsegError(f"{path}: {len(found)} values ({few}), so probabilities; save 0 and 1, cut at a threshold")
    if len(marks) > MOST:
        raise CompsegError(f"{path}: {len(found)} values ({few}) are more than a mask has; save 0 and 1{_OR_SAY}")
    if len(marks) > 1 and len(marks) == len(found):
        raise CompsegError(
            f"{path}: no pixel is 0, so {in_words(found)} cannot be told apart; save 0 outside and 1 inside{_OR_SAY}"
        )
    return np.asarray(labels != 0)


_OR_SAY = ", or for truth masks say which value is disease: source.truth_value=2"


def in_words(values: Collection[Any]) -> str:
    """Values of a mask for a message: `1, 2 and 3`; colours as in HTML."""
    words = [f"#{int(value):06x}" if value > 65535 else f"{value:g}" for value in values]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else ""))) or "nothing"
