"""Between mean and maximum, on the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import masked_log_mean_exp, require


class LogSumExpPool(nn.Module):
    """`x = sigmoid((1/r) log((1/N) sum exp(r z)))` (Pinheiro and Collobert, arXiv 1411.6228).

    Args:
        r: Sharpness, above 0: towards 0 the mean of the logits, towards infinity their maximum.

    Raises:
        CompsegError: r is not above 0.
    """

    def __init__(self, r: float = 10.0) -> None:
        super().__init__()
        require(r > 0, f"head.pool.r: expected a number above 0, got {r}; 10 is usual")
        self.r = r

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return torch.sigmoid(masked_log_mean_exp(self.r * logits[:, :1], tissue) / self.r)
