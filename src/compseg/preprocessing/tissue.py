"""The tissue rule of a cohort: which pixels count.

The same rule is applied when a cohort is prepared and when a new image is predicted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError, require
from compseg.preprocessing.axis import AMIDE_I, band_weights, span, within
from compseg.samples import Channels, Image, Mask, SampleArrays

RULES = ("all", "nonzero", "otsu", "amide", "stain")
BY_LEVEL = ("otsu", "amide", "stain")  # what counts in a pixel depends on all of the image
LOWEST_SNR = 3.0  # height of amide I over the noise, below which a pixel is background at any area
ALIKE = 0.01  # share of pixels in which two masks of the same tissue may differ
FRAGMENT = 0.02  # of the largest piece of tissue; smaller ones are crumbs


def resolve_rule(rule: str, channels: Channels) -> str:
    """Turn `auto` into a rule.

    `nonzero` on a spectral axis, where background is zero-filled; `all` for pictures, where black is a colour.
    """
    if rule != "auto":
        return rule
    return "nonzero" if channels.spectral else "all"


def tissue_mask(image: Image, rule: str, channels: Channels | None = None) -> Mask:
    """The pixels of an image that count.

    Args:
        image: `(H, W, C)`, raw values.
        rule: `all`; `nonzero` (some channel differs from zero); `otsu` (mean over channels above Otsu's threshold);
            `amide` (the same of the area of amide I, where it exceeds the noise); `stain` (the same of the saturation
            of a stained section's colours). The last two leave fragments out. Otsu's threshold is where 2-means would
            cut: both make the variance within the two classes smallest.
        channels: Of the image; `amide` needs them.

    Returns:
        `(H, W)` bool.

    Raises:
        CompsegError: For an unknown rule, or one that these channels do not allow.
    """
    if rule == "all":
        return np.ones(image.shape[:2], bool)
    if rule == "nonzero":
        return np.asarray((image != 0).any(axis=2))
    if rule in BY_LEVEL:
        return mask_above(level_of(image, rule, channels), rule)
    raise CompsegError(
        f"tissue={rule}: expected auto, {', '.join(RULES[:-1])} or {RULES[-1]}; choose one of these or give masks in "
        "the manifest"
    )


def tissue_of(arrays: SampleArrays, rule: str, channels: Channels) -> Mask:
    """The tissue of a sample: its own mask, else by a rule, see `tissue_mask`."""
    return tissue_mask(arrays.image, rule, channels) if arrays.tissue is None else arrays.tissue


def has_own_tissue(arrays: SampleArrays, rule: str, channels: Channels) -> bool:
    """Whether a sample's mask is another than the rule gives, by more than a hundredth of the pixels."""
    if arrays.own_tissue is not None:
        return arrays.own_tissue
    if arrays.tissue is None:
        return False
    return bool(np.mean(arrays.tissue != tissue_mask(arrays.image, rule, channels)) > ALIKE)


def level_of(image: Image, rule: str, channels: Channels | None = None) -> NDArray[np.float32]:
    """What a rule of `BY_LEVEL` compares with its threshold, `(H, W)`; of each pixel by itself."""
    if rule == "otsu":
        return np.asarray(image.astype(np.float32).mean(axis=2))
    if rule == "stain":
        require(image.shape[2] == 3, f"tissue=stain: expected red, green and blue, got {image.shape[2]} channels")
        return np.asarray(np.ptp(image.astype(np.float32), axis=2))
    values = () if channels is None else channels.values
    weights = None if channels is None else amide_weights(channels)
    if weights is None:
        raise CompsegError(f"tissue=amide: no channels at 1600 to 1700 cm-1 in {span(values) if values else 'it'}")
    area = image.astype(np.float32) @ weights
    return np.where(signal_to_noise(image, values) >= LOWEST_SNR, area, np.float32(0))


def amide_weights(channels: Channels) -> NDArray[np.float32] | None:
    """Weights `(C,)` whose product with a spectrum is the area of amide I; None where no channels cover it."""
    weights = band_weights(channels.values, AMIDE_I) if channels.spectral else np.zeros(1)
    return weights.astype(np.float32) if weights.any() else None


def signal_to_noise(image: Image, values: tuple[float, ...]) -> NDArray[np.float32]:
    """Height of amide I over the standard deviation of the noise, of each pixel `(H, W)`.

    The noise is that of the fourth differences along the axis, by their median, which bands hardly move.
    """
    band = image[..., within(np.asarray(values), [AMIDE_I])].astype(np.float32)
    # Of fourth differences of white noise the variance is 70 times as large.
    differences = np.abs(np.diff(image.astype(np.float32), 4, axis=2)) if image.shape[2] > 5 else band * 0 + 1
    noise = np.median(differences, axis=2) / 0.6745 / np.sqrt(70)
    height = band.max(axis=2) - np.minimum(image[..., 0], image[..., -1])
    return np.asarray(height / np.maximum(noise, 1e-12), np.float32)


def mask_above(level: NDArray[np.float32], rule: str) -> Mask:
    """The pixels whose level exceeds Otsu's threshold; of the rules that say so, without fragments."""
    mask = np.asarray(level > otsu(level, rule))
    return mask if rule == "otsu" else without_fragments(mask)


def without_fragments(mask: Mask) -> Mask:
    """A mask `(H, W)` without pieces smaller than a share of its largest one; pixels touch by their edges."""
    rows, starts, stops = _runs(mask)
    piece, above = list(range(len(rows))), 0

    def root(run: int) -> int:
        while piece[run] != run:
            piece[run] = run = piece[piece[run]]
        return run

    for run in range(len(rows)):
        while above < run and (
            rows[above] < rows[run] - 1 or (rows[above] == rows[run] - 1 and stops[above] <= starts[run])
        ):
            above += 1
        other = above
        while rows[other] == rows[run] - 1 and starts[other] < stops[run]:
            piece[root(other)] = root(run)
            other += 1
    pieces = np.array([root(run) for run in range(len(rows))], dtype=np.intp)
    sizes = np.bincount(pieces, weights=stops - starts, minlength=1)
    kept = np.zeros_like(mask)
    for large in np.flatnonzero(sizes[pieces] >= FRAGMENT * sizes.max()):
        kept[rows[large], starts[large] : stops[large]] = True
    return kept


def _runs(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Rows, first columns and columns after the last of what lies in one piece within a row."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def otsu(values: Image, rule: str = "otsu", bins: int = 256) -> float:
    """Otsu's threshold: the cut that maximises the variance between the two classes.

    Otsu, IEEE Trans. SMC 9:62, 1979.

    Raises:
        CompsegError: A value is NaN or infinite.
    """
    require(bool(np.isfinite(values).all()), f"tissue={rule}: NaN or infinite values have no level; set them to 0")
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
