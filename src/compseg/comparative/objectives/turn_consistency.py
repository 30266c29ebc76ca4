"""Regulariser: a turned image has the turned map."""

from __future__ import annotations

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean
from compseg.comparative.objectives.base import Objective


class TurnConsistency(Objective):
    """`(1/N) sum (a_i - a'_i)^2` over the tissue, a' the activation of the flipped or turned image, turned back.

    After Li et al. (arXiv 1903.00348), who ask it of an averaged network, and the equivariance loss of SEAM (Wang et
    al., CVPR 2020, arXiv 2004.04581), which has the absolute value. Tissue has no upright: what a map says of a pixel
    must not depend on how the slide lay. Turning training samples (`augmentation=turns`) says so as well, one way at a
    time; here both ways stand in one step, and the gradient runs through both.
    """

    reads = frozenset({"turned"})

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean squared difference, `(B, 1)`.

        Raises:
            ValueError: The second activation does not stand in `out`.
        """
        if out.turned is None:
            raise ValueError("out.turned: TurnConsistency expected the turned image's activation, got None")
        return masked_mean((out.activation - out.turned).square(), out.tissue).unsqueeze(1)
