"""Sums over the many values of an image, in float32 and a few pixels at a time: a copy of all would leave the cache.

By torch, which converts float16 eight times faster than NumPy does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compseg.samples import Image, Mask

STRIP = 2**17  # values, which a core's cache holds


def channel_sums(image: Image, parts: Sequence[slice] = (slice(None),)) -> NDArray[np.float32]:
    """Sums over some parts of the channels of `(H, W, C)`: `(P, H, W)` float32."""
    pixels = image.reshape(-1, image.shape[-1])
    sums = torch.empty(len(parts), len(pixels))
    for places, strip in float_strips(pixels):
        for total, part in zip(sums, parts, strict=True):
            torch.sum(strip[:, part], 1, out=total[places])
    found: NDArray[np.float32] = sums.numpy().reshape(len(parts), *image.shape[:-1])
    return found


def part_means(spectra: Tensor | Image, parts: Sequence[Mask]) -> NDArray[np.float32]:
    """The mean spectrum of the pixels of each part, `(P, C)` float32; NaN where a part has none.

    Args:
        spectra: `(n, C)`; an array, or a tensor on any device.
        parts: `(n,)` bool each. Pixels of no part are not looked at: they may hold anything.
    """
    weights, chosen = np.array(parts), np.flatnonzero(np.any(parts, axis=0))
    total = np.zeros((len(parts), spectra.shape[1]))
    for places, strip in float_strips(spectra, chosen):
        weight = torch.from_numpy(weights[:, chosen[places]]).to(strip)
        total += (weight @ strip).cpu().numpy()
    count = weights.sum(1)[:, None]
    means: NDArray[np.float64] = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return means.astype(np.float32)


def float_strips(spectra: Tensor | Image, chosen: NDArray[np.int64] | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Spectra in float32, a few pixels at a time.

    Args:
        spectra: `(n, C)`.
        chosen: Numbers of the pixels that are wanted, `(m,)`; None: all.

    Yields:
        A range of the pixels, and their values `(r, C)`, which the next ones may overwrite.
    """
    step = max(1, STRIP // spectra.shape[1])
    for start in range(0, len(spectra) if chosen is None else len(chosen), step):
        places = slice(start, start + step)
        some: Any = spectra[places] if chosen is None else spectra[chosen[places]]
        yield places, _tensor(some).float()


def _tensor(values: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values
    # Torch converts float16 alone faster, and takes what is native, writable and has no negative strides.
    dtype = np.float16 if values.dtype.kind == "f" and values.dtype.itemsize == 2 else np.float32
    return torch.from_numpy(values.astype(dtype, order="C", copy=not values.flags.writeable))
