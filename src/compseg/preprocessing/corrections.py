"""Corrections of each pixel's spectrum, on `(B, C, H, W)` tensors.

Each removes something that is physics rather than biology.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, normalize, pad


class StandardNormalVariate(nn.Module):
    """Each spectrum minus its mean, over its standard deviation (SNV; Barnes et al., Appl. Spectrosc. 43:772, 1989).

    Removes an offset and the thickness of the sample.
    """

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape; spectra without variation (background) become zero."""
        centred = image - image.mean(dim=1, keepdim=True)
        deviation: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(image.shape[1])
        return centred / deviation.clamp_min(1e-6)


class Detrend(nn.Module):
    """Each spectrum less the polynomial that fits it best (Barnes et al., Appl. Spectrosc. 43:772, 1989).

    Removes a baseline that is offset, sloped or bent: the mark of an instrument, a slide or an array, not of the
    sample. A standard normal variate afterwards removes what is left of the thickness.

    Args:
        channels: Number of channels C, evenly spaced.
        degree: Of the polynomial, below C.
    """

    basis: Tensor

    def __init__(self, channels: int, degree: int = 4) -> None:
        super().__init__()
        if not 0 <= degree < channels:
            raise ValueError(f"degree {degree}: expected at least 0 and less than the {channels} channels")
        # Legendre polynomials: well conditioned, so that the fit is exact in float32.
        values = np.polynomial.legendre.legvander(np.linspace(-1, 1, channels), degree)
        orthonormal = np.ascontiguousarray(np.linalg.qr(values)[0].T)  # (K, C), each polynomial in one piece
        self.register_buffer("basis", torch.from_numpy(orthonormal).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape."""
        spectra = image.movedim(1, -1)
        return (spectra - linear(spectra, self.basis) @ self.basis).movedim(-1, 1)


class VectorNorm(nn.Module):
    """Each spectrum over its Euclidean length: removes the thickness alone."""

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape."""
        return normalize(image, dim=1, eps=1e-6)


class Derivative(nn.Module):
    """Savitzky-Golay smoothed first or second derivative along the channels.

    Removes offset (first) or offset and slope (second derivative) of the baseline (Savitzky and Golay, Anal. Chem.
    36:1627, 1964).

    Args:
        order: 1 or 2.
        window: Odd number of channels of the local fit.
        degree: Degree of the fitted polynomial, at least `order`.
    """

    kernel: Tensor

    def __init__(self, order: int = 1, window: int = 13, degree: int = 4) -> None:
        super().__init__()
        if window % 2 == 0 or degree >= window or order > degree:
            raise ValueError(
                f"window {window} must be odd and larger than degree {degree}, which must be at least order {order}"
            )
        margin = window // 2
        powers = torch.arange(-margin, margin + 1, dtype=torch.float64)[:, None] ** torch.arange(degree + 1)
        factorial = float(torch.arange(1, order + 1).prod())
        kernel = torch.linalg.pinv(powers)[order] * factorial
        self.register_buffer("kernel", kernel.float()[None, None, :, None], persistent=False)
        self.margin = margin

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape; the axis' ends repeat the last channel."""
        B, C, H, W = image.shape
        spectra = image.reshape(B, 1, C, H * W)
        padded = pad(spectra, (0, 0, self.margin, self.margin), mode="replicate")
        return conv2d(padded, self.kernel).reshape(B, C, H, W)
