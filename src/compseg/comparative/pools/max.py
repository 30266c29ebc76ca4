"""The strongest pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaxPool(nn.Module):
    """`x = max a` (Oquab et al., CVPR 2015): one active pixel is enough."""

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        kept = logits[:, :1].masked_fill(~tissue, torch.finfo(logits.dtype).min)
        return torch.sigmoid(kept.flatten(1).amax(1))
