"""The paper's pool."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import masked_mean


class MeanPool(nn.Module):
    """`x = (1/N) sum a`: the fraction of the tissue that is active.

    The paper lets the pooling neuron "count" active pixels (section 3.1) and calls alpha a percentage of the tissue, so
    the count is divided by N. Elsewhere: global average pooling (Lin et al., arXiv 1312.4400).
    """

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return masked_mean(torch.sigmoid(logits[:, :1]), tissue)
