"""Bounds on the size of the disease region, as a barrier."""

from __future__ import annotations

import math

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean, require
from compseg.comparative.objectives.base import Objective


class LogBarrier(Objective):
    """Extended log-barrier on the mean activation m of disease samples (Kervadec et al., arXiv 1904.04205).

    `psi(lower - m) + psi(m - upper)` with `psi(z) = -log(-z) / t` for `z <= -1/t^2`, continued by its tangent
    `t z - log(1/t^2) / t + 1/t` beyond: unlike `SizePenalty` it also pushes inside the bounds, away from both. Max-Min
    (arXiv 2011.07221) sets it beside `DenseNegatives`, as does the method `log_barrier`. The source raises t from 1 to
    10 during training; here it stays.

    Args:
        lower: Smallest disease fraction of a disease sample; the paper's alpha.
        upper: Largest.
        t: Steepness of the wall, above 0.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: The bounds are not 0 <= lower < upper <= 1, or t is not above 0.
    """

    def __init__(self, lower: float = 0.1, upper: float = 0.85, t: float = 5.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(0 <= lower < upper <= 1, f"objective.lower: expected 0 <= lower < upper <= 1, got {lower} and {upper}")
        require(t > 0, f"objective.t: expected a number above 0, got {t}; 1 to 10 is usual")
        self.lower, self.upper, self.t = lower, upper, t

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The two barriers of disease samples, `(B, 1)`."""
        mean = masked_mean(out.activation, out.tissue)
        return (labels * (self._barrier(self.lower - mean) + self._barrier(mean - self.upper))).unsqueeze(1)

    def _barrier(self, z: Tensor) -> Tensor:
        joint = 1 / self.t**2
        inside = -(-z).clamp(min=joint).log() / self.t
        outside = self.t * z - math.log(joint) / self.t + 1 / self.t
        return inside.where(z <= -joint, outside)
