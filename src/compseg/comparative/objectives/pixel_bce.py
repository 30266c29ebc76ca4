"""The baseline that takes the sample label for every pixel's."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean
from compseg.comparative.objectives.base import Objective


class PixelBCE(Objective):
    """Cross-entropy of every tissue pixel with its sample's label, `(1/N) sum log(1 + exp(z)) - l z`: noisy labels.

    In multiple-instance learning this is single-instance learning (Ray and Craven, ICML 2005). The best constant answer
    for a spectrum is the share of disease samples among the samples it is seen in.
    """

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean cross-entropy over the tissue, `(B, 1)`."""
        z = out.logits[:, :1]
        return masked_mean(softplus(z) - labels.view(-1, 1, 1, 1) * z, out.tissue).unsqueeze(1)
