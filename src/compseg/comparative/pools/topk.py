"""The highest pixels, against the lowest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import descending, require


class TopKPool(nn.Module):
    """WILDCAT's pool (Durand et al., CVPR 2017): highest logits plus, at a smaller weight, lowest logits.

    `x = sigmoid((mean of the k highest z + weight * mean of the k lowest z) / 2)` with k = `share` of the N tissue
    pixels, at least one. The halving is that of the authors' code.

    Args:
        share: k / N in (0, 1].
        lowest: Weight of the lowest logits, 0 or more.

    Raises:
        CompsegError: A value is out of its range.
    """

    def __init__(self, share: float = 0.2, lowest: float = 0.7) -> None:
        super().__init__()
        require(0 < share <= 1, f"head.pool.share: expected a fraction in (0, 1], got {share}; the source's is 0.2")
        require(lowest >= 0, f"head.pool.lowest: expected 0 or more, got {lowest}; the source's is 0.7")
        self.share, self.lowest = share, lowest

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        ordered, rank, size = descending(logits[:, :1], tissue)
        k = (self.share * size).round().clamp(min=1)
        highest = (rank < k) & (rank < size)
        lowest = (rank >= size - k) & (rank < size)
        weights = (highest + self.lowest * lowest) / (2 * k)
        return torch.sigmoid((weights * ordered).sum(1)).where(size[:, 0] > 0, 0)
