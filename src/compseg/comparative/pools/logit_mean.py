"""The pool of a classifier: the mean of the evidence, then one probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.comparative.numerics import masked_mean


class LogitMeanPool(nn.Module):
    """`x = sigmoid((1/N) sum z)`: global average pooling before the classifier (Zhou et al., CVPR 2016).

    A segmenter ends in a 1x1 convolution, which is linear: whether features are averaged and then classified, as there,
    or classified and then averaged, as here, is the same. So the logits are the class activation map (CAM) of the
    classifier, and sigmoid(z) is the probability of a sample that looked like this pixel all over. `MeanPool` has the
    sigmoid and the mean the other way round: there a pixel's activation, not its evidence, is what counts.

    Args:
        map: The classifier's map, -1 for the last: a Grad-CAM is put before it.
    """

    def __init__(self, map: int = 0) -> None:
        super().__init__()
        self.map = map

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        score = masked_mean(logits[:, self.map, None], tissue)
        return torch.sigmoid(score).where(tissue.flatten(1).any(1), 0)
