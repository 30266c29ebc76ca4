"""Regulariser: short boundaries."""

from __future__ import annotations

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.objectives.base import Objective


class TotalVariation(Objective):
    """Mean `|a_i - a_j|` over all pairs of 4-neighbours in the tissue (after Rudin, Osher and Fatemi, 1992)."""

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean step between neighbours, `(B, 1)`."""
        a, m = out.activation, out.tissue
        down, right = (m[..., 1:, :] & m[..., :-1, :]), (m[..., 1:] & m[..., :-1])
        steps = (a[..., 1:, :] - a[..., :-1, :]).abs().where(down, 0).flatten(1).sum(1, keepdim=True)
        steps = steps + (a[..., 1:] - a[..., :-1]).abs().where(right, 0).flatten(1).sum(1, keepdim=True)
        pairs = down.flatten(1).sum(1, keepdim=True) + right.flatten(1).sum(1, keepdim=True)
        return steps / pairs.clamp(min=1)
