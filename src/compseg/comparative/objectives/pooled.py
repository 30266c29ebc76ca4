"""Losses on the output o alone: the paper's, and what it may have meant."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import negative_log, require
from compseg.comparative.objectives.base import Objective

LOSSES = ("l1", "rmse", "mse", "bce")
TARGETS = ("alpha", "maximum")


class PooledLoss(Objective):
    """Distance of o from T for disease samples and from 0 for healthy ones (paper, section 3.2).

    The paper prints `sum_j |o_j - alpha l_j|` and calls it a root-mean-squared error. The root of one sample's square
    is its absolute value, so the printed formula is `l1` with T = alpha; the mean over the samples stands for the sum,
    which to RMSprop is the same, since it divides gradients by their size.

    With T = alpha a disease sample is best off at `Sigma.crossing`, about 1.45 alpha, and every pixel beyond that
    costs. `one_sided` charges a disease sample for what it lacks only. T = `maximum` is out of reach below x = 1, so
    that what is left of the slope always asks for more: the incentive that the paper gives gamma for.

    Args:
        loss: With e = o - T l: `l1` is mean |e|, `mse` mean e^2, `rmse` its root (over all samples of all ranks, so one
            large error damps the gradients of the others), `bce` the cross-entropy of o / ceiling as a probability.
        target: T, `alpha` (where the transfer saturates) or `maximum` (its largest value).
        one_sided: Whether a disease sample with o above T is left in peace.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: A value is unknown, or `bce` is asked for with another target than `maximum`, or one-sided.
    """

    def __init__(
        self,
        loss: Literal["l1", "rmse", "mse", "bce"] = "l1",
        target: Literal["alpha", "maximum"] = "alpha",
        one_sided: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        require(loss in LOSSES, f"objective.loss: expected one of {', '.join(LOSSES)}, got {loss}")
        require(target in TARGETS, f"objective.target: expected one of {', '.join(TARGETS)}, got {target}")
        if loss == "bce":
            require(target == "maximum", f"objective.target: bce expected maximum (o / maximum is read), got {target}")
            require(not one_sided, "objective.one_sided: bce expected false (nothing exceeds the ceiling), got true")
        self.loss, self.target, self.one_sided = loss, target, one_sided

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """|e|, e^2 or the cross-entropy of each sample, `(B, 1)`."""
        if self.loss == "bce":
            p = (out.o / out.maximum).clamp(max=1)
            return (labels * negative_log(p) + (1 - labels) * negative_log(1 - p)).unsqueeze(1)
        error = out.o - labels * (out.alpha if self.target == "alpha" else out.maximum)
        if self.one_sided:
            error = error.clamp(max=0).where(labels > 0.5, error)
        return (error.abs() if self.loss == "l1" else error.square()).unsqueeze(1)

    def finish(self, means: Tensor) -> Tensor:
        """The mean, or for `rmse` its root."""
        # The root has no gradient at exactly 0; a loss that small has nothing to say either.
        return means.sum().clamp(min=1e-12).sqrt() if self.loss == "rmse" else means.sum()
