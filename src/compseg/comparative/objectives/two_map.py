"""An experiment: one map for disease, another for healthy tissue."""

from __future__ import annotations

import torch
from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean, require
from compseg.comparative.objectives.base import Objective
from compseg.comparative.transfers import Sigma


class TwoMap(Objective):
    """`|o+ - alpha l| + |o- - alpha (1 - l)|`, o+ from map 0 and o- from map 1. An experiment, not the paper's method.

    The paper names neurons p+, p- and maps a+, a- once and defines neither; two weight-shared copies of one network,
    fed with disease and healthy samples, are the likelier reading, and equal to an ordinary mixed batch. This is the
    other reading: a second map with the labels exchanged. It assumes that healthy samples hold something that disease
    samples lack, which for a tumour in healthy tissue is false.

    Args:
        alpha: Of the transfer of map 1, as in the head.
        beta: As in the head.
        gamma: As in the head.
        weight: Factor in a `Sum`.
    """

    columns = 2

    def __init__(self, alpha: float = 0.1, beta: float = 5.0, gamma: float = 0.001, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.transfer = Sigma(alpha, beta, gamma)

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Distance of the disease map and of the healthy map from their targets, `(B, 2)`.

        Raises:
            CompsegError: The segmenter gives one map.
        """
        maps = out.logits.shape[1]
        require(maps >= 2, f"maps: two_map expected 2 (disease, healthy), got {maps}; set maps=2")
        healthy = self.transfer(masked_mean(torch.sigmoid(out.logits[:, 1:2]), out.tissue))
        targets = out.alpha * labels, self.transfer.saturation * (1 - labels)
        return torch.stack([(out.o - targets[0]).abs(), (healthy - targets[1]).abs()], dim=1)
