"""Between mean and maximum, on the activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from compseg.comparative.numerics import masked_log_mean_exp, require


class GeneralizedMeanPool(nn.Module):
    """`x = ((1/N) sum a^r)^(1/r)` (DWS-MIL, Jia et al., arXiv 1701.00794).

    Computed from log a, which needs no small number under the root to keep gradients finite at a = 0.

    Args:
        r: Exponent, above 0: 1 is the mean, towards infinity the maximum.

    Raises:
        CompsegError: r is not above 0.
    """

    def __init__(self, r: float = 4.0) -> None:
        super().__init__()
        require(r > 0, f"head.pool.r: expected a number above 0, got {r}; the source's is 4")
        self.r = r

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return torch.exp(masked_log_mean_exp(self.r * logsigmoid(logits[:, :1]), tissue) / self.r)
