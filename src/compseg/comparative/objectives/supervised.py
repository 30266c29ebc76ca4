"""The ceiling: what an expert's masks would give."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean
from compseg.comparative.objectives.base import Objective
from compseg.errors import CompsegError


class SupervisedPixels(Objective):
    """Cross-entropy of every tissue pixel with the truth, `(1/N) sum log(1 + exp(z)) - t z`; sample labels go unread.

    No method for use, but the mark that the others are measured by.
    """

    needs_truth = True

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean cross-entropy over the tissue, `(B, 1)`.

        Raises:
            CompsegError: There is no truth.
        """
        if truth is None:
            raise CompsegError("truth: the supervised objective expected pixel masks, got none; use another method")
        z = out.logits[:, :1]
        return masked_mean(softplus(z) - truth * z, out.tissue).unsqueeze(1)
