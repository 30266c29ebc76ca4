"""Pixels of disease samples are a mixture of known proportion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean, require
from compseg.comparative.objectives.base import Objective


class PositiveUnlabelled(Objective):
    """Non-negative risk of positive-unlabelled learning on pixels (Kiryo et al., arXiv 1703.00593), signs exchanged.

    Pixels of healthy samples are known negatives; pixels of disease samples are unlabelled, a share pi of them
    positive. With R+ and R- the mean logistic loss of calling pixels disease or healthy,
    `risk = (1 - pi) R-(healthy) + max(0, R+(disease) - (1 - pi) R+(healthy))`.
    The bracket estimates pi times the loss on the hidden positives; a network that learns by heart drives it below 0,
    and there the clamp stops paying (the source's algorithm goes further and steps back up; here is its estimator).
    Every sample counts the same, whatever its tissue. A batch without one of the classes has no such estimate and skips
    the bracket.

    Args:
        prior: pi, the mean disease fraction of disease samples, in (0, 1).
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: `prior` is not in (0, 1).
    """

    columns = 4

    def __init__(self, prior: float = 0.3, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(
            0 < prior < 1, f"objective.prior: expected a fraction in (0, 1), got {prior}; the mean share of disease"
        )
        self.prior = prior

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Loss of healthy pixels as healthy, as disease, of unlabelled pixels as disease, and the label: `(B, 4)`."""
        z = out.logits[:, :1]
        as_healthy, as_disease = masked_mean(softplus(z), out.tissue), masked_mean(softplus(-z), out.tissue)
        return torch.stack([(1 - labels) * as_healthy, (1 - labels) * as_disease, labels * as_disease, labels], dim=1)

    def finish(self, means: Tensor) -> Tensor:
        """The clamped risk."""
        share = means[3]
        healthy = means[:2] / (1 - share).clamp(min=1e-7)
        hidden = means[2] / share.clamp(min=1e-7) - (1 - self.prior) * healthy[1]
        both = (share > 0) & (share < 1)
        risk: Tensor = (1 - self.prior) * healthy[0] + hidden.clamp(min=0).where(both, 0)
        return risk
