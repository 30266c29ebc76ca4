"""Regulariser: a turned image has the turned map."""

from __future__ import annotations

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import masked_mean
from compseg.comparative.objectives.base import Objective


class RotationConsistency(Objective):
    """`(1/N) sum (a_i - a'_i)^2` over the tissue, a' the activation of the flipped or turned image, turned back.

    After Li et al. (arXiv 1903.00348), who ask it of an averaged network, and the equivariance loss of SEAM (Wang et
    al., CVPR 2020, arXiv 2004.04581), which has the absolute value. Tissue has no upright: what a map says of a pixel
    must not depend on how the slide lay. Rotating training samples (`augmentation=flip_rotate90`) says so as well, one
    way at a time; here both ways stand in one step, and the gradient runs through both.
    """

    reads = frozenset({"rotated"})

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean squared difference, `(B, 1)`.

        Raises:
            ValueError: The second activation does not stand in `out`.
        """
        (look,) = self.reads
        other: Tensor | None = getattr(out, look)
        if other is None:
            raise ValueError(f"out.{look}: {type(self).__name__} expected the {look} image's activation, got None")
        return masked_mean((out.activation - other).square(), out.tissue).unsqueeze(1)


class FlipConsistency(RotationConsistency):
    """The same over flips alone: left and right, up and down, both. For pictures that do not lie on their side.

    A sample's label does not say where, within the network's sight of it, the map has to answer to a region, so the
    whole map may lie beside what it stands for, above it, say. Flipped, it would lie below: only a map that lies on its
    region flips as its image does (docs/lab-log.md).
    """

    reads = frozenset({"flipped"})
