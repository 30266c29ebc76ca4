"""The tissue rule of a cohort: which pixels count.

The same rule is applied when a cohort is prepared and when a new image is predicted.
"""

from __future__ import annotations

import numpy as np

from compseg.errors import CompsegError, require
from compseg.samples import Channels, Image, Mask


def resolve_rule(rule: str, channels: Channels) -> str:
    """Turn `auto` into a rule.

    `nonzero` on a spectral axis, where background is zero-filled; `all` for pictures, where black is a colour.
    """
    if rule != "auto":
        return rule
    return "nonzero" if channels.spectral else "all"


def tissue_mask(image: Image, rule: str) -> Mask:
    """The pixels of an image that count.

    Args:
        image: `(H, W, C)`, raw values.
        rule: `all`, `nonzero` (some channel differs from zero) or `otsu` (mean over channels above Otsu's threshold).

    Returns:
        `(H, W)` bool.

    Raises:
        CompsegError: For an unknown rule.
    """
    if rule == "all":
        return np.ones(image.shape[:2], bool)
    if rule == "nonzero":
        return np.asarray((image != 0).any(axis=2))
    if rule == "otsu":
        mean = image.astype(np.float32).mean(axis=2)
        return np.asarray(mean > otsu(mean))
    raise CompsegError(
        f"tissue={rule}: expected auto, all, nonzero or otsu; choose one of these or give masks in the manifest"
    )


def otsu(values: Image, bins: int = 256) -> float:
    """Otsu's threshold: the cut that maximises the variance between the two classes.

    Otsu, IEEE Trans. SMC 9:62, 1979.

    Raises:
        CompsegError: A value is NaN or infinite.
    """
    require(bool(np.isfinite(values).all()), "tissue=otsu: NaN or infinite values have no level; set them to 0")
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    first_moment = np.cumsum(counts * centres)
    # A side without pixels has no mean; its count of zero then cancels what stands here.
    mean_below = first_moment / np.maximum(below, 1)
    mean_above = (first_moment[-1] - first_moment) / np.maximum(above, 1)
    # At the last edge nothing is above, so the variance between the classes is zero there, as it has to be.
    return float(edges[1:][np.argmax(below * above * (mean_below - mean_above) ** 2)])
