"""What corrections learn from the training samples before training: mean and covariance of their spectra."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Samples = Iterable[tuple[Tensor, Tensor]]  # image (C, H, W) and tissue (1, H, W) bool, one sample at a time


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
