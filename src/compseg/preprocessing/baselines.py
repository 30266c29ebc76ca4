"""Baselines of each spectrum by itself: the rubber band, and asymmetric least squares. Best done when preparing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class RubberBand(nn.Module):
    """Each spectrum above a rubber band that is stretched around it from below: its lower convex hull.

    Args:
        wavenumbers: Of the channels, `(C,)`.
    """

    axis: Tensor

    def __init__(self, wavenumbers: Sequence[float]) -> None:
        super().__init__()
        axis = np.asarray(wavenumbers, dtype=np.float64)
        # Upwards from 0 and of length 1, so that products of differences are as exact as the values.
        axis = np.abs(axis - axis[0]) / abs(axis[-1] - axis[0])
        self.register_buffer("axis", torch.from_numpy(axis).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        spectra = image.movedim(1, -1).reshape(-1, image.shape[1])
        left, right = self._hull(spectra)
        share = (self.axis - self.axis[left]) / (self.axis[right] - self.axis[left]).clamp_min(1e-9)
        baseline = torch.lerp(spectra.gather(1, left), spectra.gather(1, right), share)
        return (spectra - baseline).reshape(image.movedim(1, -1).shape).movedim(-1, 1)

    def _hull(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """The corners left and right of each channel, `(n, C)` each: Andrew's monotone chain for all at once."""
        count, channels = spectra.shape
        row = torch.arange(count, device=spectra.device)
        corners = torch.zeros(count, channels, dtype=torch.int64, device=spectra.device)
        top = torch.zeros_like(row)
        for channel in range(1, channels):
            x, y, going = self.axis[channel], spectra[:, channel], row
            while len(going):
                before, last = corners[going, (top[going] - 1).clamp_min(0)], corners[going, top[going]]
                origin = spectra[going, before]
                rise = (spectra[going, last] - origin) * (x - self.axis[before])
                above = rise >= (y[going] - origin) * (self.axis[last] - self.axis[before])
                going = going[above & (top[going] > 0)]
                top[going] -= 1
            top += 1
            corners[row, top] = channel
        places = torch.arange(channels, device=spectra.device).expand(count, channels)
        kept = torch.zeros_like(corners, dtype=torch.bool)
        kept.scatter_(1, torch.where(places <= top[:, None], corners, 0), True)
        left = torch.where(kept, places, 0).cummax(1).values
        right = torch.where(kept, places, channels - 1).flip(1).cummin(1).values.flip(1)
        return left, right


class AsymmetricLeastSquares(nn.Module):
    """Each spectrum less a smooth curve that bands pull up little (ALS; Eilers and Boelens, 2005).

    The curve z minimises `sum w (y - z)**2 + smoothness * sum (second difference of z)**2`, with w = `asymmetry` above
    it and 1 - `asymmetry` below.

    Args:
        smoothness: lambda; grows with the fourth power of the number of channels.
        asymmetry: p, near 0.
        iterations: Of weights and curve in turn.
    """

    def __init__(self, smoothness: float = 1e6, asymmetry: float = 0.01, iterations: int = 10) -> None:
        super().__init__()
        self.smoothness, self.asymmetry, self.iterations = smoothness, asymmetry, iterations

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        # Channels first in memory, because each step of the solution is one of all pixels. In float64: lambda is large.
        spectra = image.movedim(1, 0).reshape(image.shape[1], -1).double().contiguous()
        weights = torch.ones_like(spectra)
        curve = spectra
        for _ in range(self.iterations):
            curve = self._smoothed(spectra, weights)
            weights = torch.where(spectra > curve, self.asymmetry, 1 - self.asymmetry).double()
        above = (spectra - curve).to(image.dtype)
        return above.reshape(image.movedim(1, 0).shape).movedim(0, 1)

    def _smoothed(self, spectra: Tensor, weights: Tensor) -> Tensor:
        """Solutions of `(W + lambda D'D) z = W y`, which has five diagonals, by LDL' for all pixels at once."""
        count = len(spectra)
        second = np.diff(np.eye(count), 2, axis=0)
        penalty = self.smoothness * (second.T @ second)
        main, one, two = (np.append(np.diagonal(penalty, offset), [0.0] * offset) for offset in range(3))
        pivots, lower, lowest, solved = (torch.zeros_like(spectra) for _ in range(4))
        for i in range(count):
            pivots[i] = weights[i] + main[i]
            lower[i], solved[i] = one[i], weights[i] * spectra[i]
            if i > 0:
                pivots[i] -= pivots[i - 1] * lower[i - 1] ** 2
                lower[i] -= lowest[i - 1] * pivots[i - 1] * lower[i - 1]
                solved[i] -= lower[i - 1] * solved[i - 1]
            if i > 1:
                pivots[i] -= pivots[i - 2] * lowest[i - 2] ** 2
                solved[i] -= lowest[i - 2] * solved[i - 2]
            lower[i] /= pivots[i]
            lowest[i] = two[i] / pivots[i]
        solved /= pivots
        for i in range(count - 2, -1, -1):
            solved[i] -= lower[i] * solved[i + 1]
            if i + 2 < count:
                solved[i] -= lowest[i] * solved[i + 2]
        return solved
