"""What corrections learn from the training samples before training: mean and covariance of their spectra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

# Image (C, H, W) and tissue (1, H, W) bool of each sample; they may be asked for more than once.
Samples = Iterable[tuple[Tensor, Tensor]]


def moments(samples: Samples) -> tuple[Tensor, Tensor]:
    """Mean `(C,)` and covariance `(C, C)`, float64, of all tissue pixels of samples, with the same weight each."""
    pixels = (image.permute(1, 2, 0)[tissue[0]].double() for image, tissue in samples)
    mean, square, count = mean_and_squares(pixels, lambda centred: centred.T @ centred)
    return mean, square / max(count, 1)


def mean_and_squares(parts: Iterable[Tensor], squared: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, int]:
    """Mean `(C,)` of all pixels, the sum of what `squared` makes of their deviations from it, and their number.

    Args:
        parts: Pixels `(n, C)`, float64, some at a time.
        squared: Squares or products of deviations `(n, C)`, summed over the pixels.
    """
    mean, square, count = torch.zeros(()), torch.zeros(()), 0
    for pixels in parts:
        if not (n := len(pixels)):
            continue
        of_part = pixels.mean(0)
        shift = of_part - mean
        # Chan's update loses no digits, however large the offset of the data is.
        square = square + squared(pixels - of_part) + squared(shift[None]) * (count * n / (count + n))
        mean, count = mean + shift * (n / (count + n)), count + n
    return mean, square, count


def noise(samples: Samples) -> Tensor:
    """Covariance `(C, C)` of the noise, float64: half that of the differences of neighbours along rows, both tissue."""

    def differences() -> Iterator[tuple[Tensor, Tensor]]:
        for image, tissue in samples:
            yield image.diff(dim=2) / 2**0.5, tissue[..., 1:] & tissue[..., :-1]

    return moments(differences())[1]
