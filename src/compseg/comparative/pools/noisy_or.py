"""Any of several independent witnesses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from compseg.comparative.numerics import masked_mean, require


class NoisyOrPool(nn.Module):
    """`x = 1 - (prod (1 - a))^(n/N)` (Zhang, Platt and Viola, NIPS 2005, where n = N).

    Neighbouring pixels repeat one another: N of them are not N independent witnesses, and with n = N an image of 65536
    pixels at a = 0.001 already gives x = 1. Here the tissue holds n independent regions, whatever its resolution.
    `log(1 - a) = -softplus(z)`, so nothing is rounded to 0 or 1 on the way.

    Args:
        regions: n, above 0. Where n times the mean of -log(1 - a) passes 16, x is 1 in float32 and a healthy sample has
            no gradient left: at 4 that takes a mean logit of 4, at 16 one of 0.5.

    Raises:
        CompsegError: `regions` is not above 0.
    """

    def __init__(self, regions: float = 4.0) -> None:
        super().__init__()
        require(regions > 0, f"head.pool.regions: expected a number above 0, got {regions}; 4 is usual")
        self.regions = regions

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return -torch.expm1(-self.regions * masked_mean(softplus(logits[:, :1]), tissue))
