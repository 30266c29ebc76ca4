"""Pixels weighted by their rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import descending, require


class RankPool(nn.Module):
    """Global weighted rank pooling, GWRP (SEC, Kolesnikov and Lampert, arXiv 1603.06098).

    With the activations in descending order, `x = sum d^(j-1) a_(j) / sum d^(j-1)`. SEC fixes d for maps of 41 x 41;
    here `d = 1 - 1 / (rho N)`, so that the same share of the tissue counts at every size.

    Args:
        rho: The share of the tissue that carries the weight, above 0: towards 0 the maximum, for large rho the mean.

    Raises:
        CompsegError: rho is not above 0.
    """

    def __init__(self, rho: float = 0.3) -> None:
        super().__init__()
        require(rho > 0, f"head.pool.rho: expected a fraction above 0, got {rho}; 0.3 is usual")
        self.rho = rho

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        ordered, rank, size = descending(torch.sigmoid(logits[:, :1]), tissue)
        # At rho N <= 1 only the maximum is left; just above 1 says the same and keeps log d finite.
        log_d = torch.log1p(-1 / (self.rho * size).clamp(min=1 + 1e-6))
        weights = torch.exp(rank * log_d) * (rank < size)
        return (weights * ordered).sum(1) / weights.sum(1).clamp(min=1)
