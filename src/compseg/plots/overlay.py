"""An activation map laid over a picture of its sample, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compseg.samples import Channels, Image, Mask

DISEASE_RGB = (213, 94, 0)
OPACITY = 0.6

RGB = NDArray[np.uint8]


def overlay(picture: Image, activation: NDArray[np.float32], mask: Mask) -> RGB:
    """A picture with the activation as a translucent colour and the thresholded region outlined.

    Args:
        picture: A thumbnail or photograph `(h, w, 3)` uint8; or any image `(H, W)` or `(H, W, C)`, shown as the mean
            over its channels in grey.
        activation: `(H, W)` in [0, 1]; 1 is most opaque. Brought to the picture's size where they differ.
        mask: `(H, W)` bool, the pixels that count as disease.

    Returns:
        `(h, w, 3)` uint8, of the picture's size.
    """
    base = as_rgb(picture).astype(np.float32)
    size = base.shape[:2]
    opacity = OPACITY * np.clip(resize(activation, size), 0, 1)[..., None]
    # In float32 and in place, because a mosaic's picture is large.
    base += opacity * (np.array(DISEASE_RGB, np.float32) - base)
    mixed: RGB = base.round(out=base).astype(np.uint8)
    mixed[outline(resize(mask, size), outline_width(size))] = DISEASE_RGB
    return mixed


def translucent(activation: NDArray[np.float32], mask: Mask, width: int) -> RGB:
    """The overlay alone, to be laid over any picture.

    Args:
        activation: `(H, W)` in [0, 1]; 1 is most opaque.
        mask: `(H, W)` bool, the pixels that count as disease.
        width: Of their outline, pixels.

    Returns:
        `(H, W, 4)` uint8, the last of it opacity.
    """
    layer = np.empty((*activation.shape, 4), np.uint8)
    layer[..., :3] = DISEASE_RGB
    layer[..., 3] = (255 * OPACITY * np.clip(activation, 0, 1)).round()
    layer[outline(mask, width), 3] = 255
    return layer


def outline_width(size: Sequence[int]) -> int:
    """How many pixels wide the outlines on a picture of this size are."""
    return max(1, round(max(size) / 256))


def as_rgb(picture: Image) -> RGB:
    """A picture that can be shown, `(h, w, 3)` uint8.

    Colour pictures in uint8 stay as they are; anything else becomes its channel mean in grey, stretched from the 1st to
    the 99th percentile.
    """
    if picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return picture
    band = picture.astype(np.float32) if picture.ndim == 2 else channel_means(picture)[0]
    return np.repeat(_stretched(band, band)[..., None], 3, axis=2)


def as_picture(image: Image, channels: Channels, tissue: Mask) -> RGB:
    """The picture of a sample that came without one, `(H, W, 3)` uint8.

    A photograph as it is; a spectral cube in false colour, the mean over each third of its axis as red, green and blue,
    each stretched over the tissue; anything else as its channel mean in grey.

    Args:
        image: `(H, W, C)` as stored.
        channels: Its axis.
        tissue: `(H, W)` bool.
    """
    if channels.names in (("grey",), ("red", "green", "blue")):
        values = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
        # Photographs of more than eight bits have no range that is known.
        if 1 < values.max(initial=0) <= 255:
            return np.clip(values.round(), 0, 255).astype(np.uint8)
        return _stretched(values, values)
    if not channels.spectral or channels.count < 3:
        return as_rgb(image)
    thirds = channel_means(image, _thirds(channels.count))
    return np.dstack([_stretched(band, band[tissue]) for band in thirds])


def channel_means(image: Image, parts: Sequence[slice] = (slice(None),)) -> NDArray[np.float32]:
    """The means over some parts of the channels of `(H, W, C)`: `(P, H, W)`."""
    from compseg.sums import channel_sums  # late, because it brings torch

    counts = [len(range(*part.indices(image.shape[2]))) for part in parts]
    return channel_sums(image, parts) / np.array(counts, np.float32)[:, None, None]


def _thirds(count: int) -> list[slice]:
    return [slice(count * third // 3, count * (third + 1) // 3) for third in range(3)]


def _stretched(values: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values as uint8, from the 1st to the 99th percentile of the finite ones of a reference."""
    finite = reference[np.isfinite(reference)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    # A constant image has no range to be stretched, and becomes black instead of 0 / 0.
    grey = (np.where(np.isfinite(values), values, low) - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.asarray((255 * np.clip(grey, 0, 1)).round(), np.uint8)


def resize(image: Image, size: tuple[int, ...]) -> Image:
    """`(H, W, ...)` to `(*size, ...)` by nearest neighbour: no value appears that was not measured."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(size, image.shape, strict=False))
    resized: Image = image[rows.astype(np.intp)[:, None], columns.astype(np.intp)]
    return resized


def outline(mask: Mask, width: int = 1) -> Mask:
    """`(H, W)` bool: a region's pixels within `width` of its edge, by 4-neighbours; the image's border is no edge."""
    core = mask
    for _ in range(width):
        padded = np.pad(core, 1, mode="edge")
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core
