"""Regulariser: decided pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean
from compseg.comparative.objectives.base import Objective


class Entropy(Objective):
    """Mean entropy of the tissue pixels, `-(1/N) sum a log a + (1 - a) log(1 - a)`, in [0, log 2] nats.

    In the MELBA 2023 survey of weakly supervised histology. A small weight: it hardens early mistakes as well.
    """

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean entropy over the tissue, `(B, 1)`."""
        z = out.logits[:, :1]
        # log a = z - softplus(z) and log(1 - a) = -softplus(z): no logarithm of 0.
        return masked_mean(softplus(z) - out.activation * z, out.tissue).unsqueeze(1)
