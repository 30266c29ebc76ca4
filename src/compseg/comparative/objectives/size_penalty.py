"""Bounds on the size of the disease region, as a penalty."""

from __future__ import annotations

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean, require
from compseg.comparative.objectives.base import Objective


class SizePenalty(Objective):
    """Squared distance of the mean activation m from [lower, upper], or from 0 for healthy samples.

    Kervadec et al. (MedIA 2019, arXiv 1805.04628) state it in pixels, with V the sum of a:
    `((V - A)^2 [V < A] + (V - B)^2 [V > B]) / |Omega|`. In fractions of the tissue, V = m N, it is the same at every
    resolution. m is the mean activation whatever the head pools.

    Args:
        lower: Smallest disease fraction of a disease sample; the paper's alpha.
        upper: Largest; the end of the plateau in the authors' later code.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: The bounds are not 0 <= lower <= upper <= 1.
    """

    def __init__(self, lower: float = 0.1, upper: float = 0.85, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(
            0 <= lower <= upper <= 1, f"objective.lower: expected 0 <= lower <= upper <= 1, got {lower} and {upper}"
        )
        self.lower, self.upper = lower, upper

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The squared distance, `(B, 1)`."""
        mean = masked_mean(out.activation, out.tissue)
        beyond = (self.lower - mean).clamp(min=0) + (mean - self.upper).clamp(min=0)
        return (labels * beyond.square() + (1 - labels) * mean.square()).unsqueeze(1)
