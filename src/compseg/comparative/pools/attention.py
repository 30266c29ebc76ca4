"""Pixels weighted by a second map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import require


class AttentionPool(nn.Module):
    """Attention pooling (Ilse, Tomczak and Welling, arXiv 1802.04712), with the segmenter's second map as attention.

    `x = sigmoid(sum w z)`, w the softmax of map 1 over the tissue. The disease map stays map 0: attention says where
    the evidence was looked for, not what it said.
    """

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M >= 2, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1].

        Raises:
            CompsegError: The segmenter gives one map.
        """
        maps = logits.shape[1]
        require(maps >= 2, f"maps: attention expected 2 (disease, attention), got {maps}; set maps=2")
        attention = logits[:, 1:2].masked_fill(~tissue, torch.finfo(logits.dtype).min)
        score = (attention.flatten(1).softmax(1) * logits[:, :1].where(tissue, 0).flatten(1)).sum(1)
        return torch.sigmoid(score).where(tissue.flatten(1).any(1), 0)
