"""What corrections learn from the training samples before training: mean and covariance of their spectra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

# Image (C, H, W) and tissue (1, H, W) bool of each sample; they may be asked for more than once.
Samples = Iterable[tuple[Tensor, Tensor]]


def moments(samples: Samples) -> tuple[Tensor, Tensor]:
    """Mean `(C,)` and covariance `(C, C)`, float64, of all tissue pixels of samples, with the same weight each."""
    mean, square, count = torch.zeros(()), torch.zeros(()), 0
    for image, tissue in samples:
        pixels = image.permute(1, 2, 0)[tissue[0]].double()
        if not (n := len(pixels)):
            continue
        of_sample = pixels.mean(0)
        centred, shift = pixels - of_sample, of_sample - mean
        # Chan's update loses no digits, however large the offset of the data is.
        square = square + centred.T @ centred + torch.outer(shift, shift) * (count * n / (count + n))
        mean, count = mean + shift * (n / (count + n)), count + n
    return mean, square / max(count, 1)


def noise(samples: Samples) -> Tensor:
    """Covariance `(C, C)` of the noise, float64: half that of the differences of neighbours along rows, both tissue."""

    def differences() -> Iterator[tuple[Tensor, Tensor]]:
        for image, tissue in samples:
            yield image.diff(dim=2) / 2**0.5, tissue[..., 1:] & tissue[..., :-1]

    return moments(differences())[1]
