"""Regulariser: agree with what the network has said on average."""

from __future__ import annotations

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean, require
from compseg.comparative.objectives.base import Objective


class MeanTeacher(Objective):
    """`(1/N) sum (a_i - a'_i)^2` over the tissue, a' by the average network (Tarvainen and Valpola, arXiv 1703.01780).

    The average network has the segmenter's weights, averaged over the steps of training with exponentially fading
    memory: after each step `theta' <- mu theta' + (1 - mu) theta`. It sees the image flipped or turned, which is the
    source's "different noise", and its activation is turned back; no gradient runs through it. The source raises the
    weight slowly from 0; here it stays. What is extracted is the trained segmenter, not the average.

    Args:
        mu: In [0, 1): the average looks back over about 1 / (1 - mu) steps. The source has 0.99 at first and 0.999
            later.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: `mu` is not in [0, 1).
    """

    reads = frozenset({"ema"})

    def __init__(self, mu: float = 0.99, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(0 <= mu < 1, f"regularisers.mean_teacher.mu: expected a number in [0, 1), got {mu}; 0.99 is usual")
        self.mu = mu

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean squared difference, `(B, 1)`.

        Raises:
            ValueError: The average network's activation does not stand in `out`.
        """
        if out.ema is None:
            raise ValueError("out.ema: MeanTeacher expected the averaged network's activation, got None")
        return masked_mean((out.activation - out.ema).square(), out.tissue).unsqueeze(1)
