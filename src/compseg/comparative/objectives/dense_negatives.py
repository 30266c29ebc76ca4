"""Healthy samples know the label of each of their pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean
from compseg.comparative.objectives.base import Objective


class DenseNegatives(Objective):
    """`(1 - l) (1/N) sum -log(1 - a)` over the tissue: no pixel of a healthy sample may be active.

    In OpenVibSpec (2022), Max-Min (Belharbi et al., arXiv 2011.07221) and NEGEV. OpenVibSpec divides by all pixels of
    the image; N tissue pixels here, so that a small spot counts as much as a large one.
    """

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean of -log(1 - a) of healthy samples, `(B, 1)`."""
        return ((1 - labels) * masked_mean(softplus(out.logits[:, :1]), out.tissue)).unsqueeze(1)
