"""Spectra by a few components that are found on the training samples' tissue: less noise, or fewer channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.errors import require
from compseg.preprocessing.fitting import Samples, moments, noise


class PrincipalComponents(nn.Module):
    """Each spectrum by its principal components: rebuilt of the first few, which has less noise, or these themselves.

    Args:
        channels: Number of channels C.
        components: How many are kept, K.
        scores: Whether to give the K components in place of C channels.
    """

    mean: Tensor
    down: Tensor
    up: Tensor

    def __init__(self, channels: int, components: int, scores: bool = False) -> None:
        super().__init__()
        require(0 < components <= channels, f"components={components}: expected 1 to {channels}, the channels")
        self.scores = scores
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("down", torch.zeros(channels, components))
        self.register_buffer("up", torch.zeros(components, channels))
        if scores:
            self.channels_after = components

    def fit(self, samples: Samples) -> None:
        """Find the components on the tissue of samples."""
        mean, covariance = moments(samples)
        self._keep(mean, torch.linalg.eigh(covariance)[1], None)

    def _keep(self, mean: Tensor, vectors: Tensor, inverse: Tensor | None) -> None:
        """Of components in rising order, `(C, C)`, the last; `inverse` gives spectra back."""
        count = len(self.up)
        self.mean.copy_(mean)
        self.down.copy_(vectors[:, -count:])
        self.up.copy_((vectors.T if inverse is None else inverse)[-count:])

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape, or to `(B, K, H, W)`."""
        scores = (image.movedim(1, -1) - self.mean) @ self.down
        return (scores if self.scores else self.mean + scores @ self.up).movedim(-1, 1)


class MinimumNoiseFraction(PrincipalComponents):
    """The same by components in the order of signal over noise (MNF; Green et al., IEEE Trans. GRS 26:65, 1988).

    Noise is what neighbouring pixels of tissue differ by.
    """

    def fit(self, samples: Samples) -> None:
        """Find the components on the tissue of samples."""
        mean, covariance = moments(samples)
        values, vectors = torch.linalg.eigh(noise(samples))
        # A channel without noise would count without limit.
        deviation = values.clamp_min(values[-1] * 1e-9).sqrt()
        whitened = vectors / deviation
        rotation = torch.linalg.eigh(whitened.T @ covariance @ whitened)[1]
        self._keep(mean, whitened @ rotation, rotation.T @ (vectors * deviation).T)
