"""A learned proportion of the pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import masked_mean, require


class NoisyAndPool(nn.Module):
    """Sigmoid-shaped in the mean activation, with a learned threshold (Kraus, Ba and Frey, arXiv 1511.05286).

    With m the mean activation, A the slope and s the logistic function,
    `x = (s(A (m - b)) - s(-A b)) / (s(A (1 - b)) - s(-A b))`: 0 at m = 0, 1 at m = 1, steepest at m = b.
    The nearest published relative of the paper's sigma; b plays the part of alpha, but is learned.

    Args:
        slope: A, above 0.
        threshold: b before training, a fraction of the tissue.

    Raises:
        CompsegError: `slope` is not above 0.
    """

    def __init__(self, slope: float = 10.0, threshold: float = 0.1) -> None:
        super().__init__()
        require(slope > 0, f"head.pool.slope: expected a number above 0, got {slope}; 10 is usual")
        self.slope = slope
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        mean = masked_mean(torch.sigmoid(logits[:, :1]), tissue)
        low, high = self._step(torch.zeros_like(mean)), self._step(torch.ones_like(mean))
        return (self._step(mean) - low) / (high - low)

    def _step(self, mean: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * (mean - self.threshold))
