"""The sample loss of the authors' later code, made to work where it stood still."""

from __future__ import annotations

import torch
from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import negative_log
from compseg.comparative.objectives.base import Objective


class WeightedCrossEntropy(Objective):
    """Cross-entropy on o, each class weighted by the share of the other (OpenVibSpec, `compsegnet.py`, 2022).

    With p the share of disease samples, `(1 - p) mean(-l log o) + p mean(-(1 - l) log(1 - x))`, where the authors have
    o in place of x and clip it to [1e-6, 1 - 1e-6]. On the trapezoid's plateau that gives a healthy sample no gradient
    at all, and beyond the plateau it drives the sample's activation up, towards all of the tissue. x rises all the way,
    so here a healthy sample is judged by x. Nor is o clipped for disease samples: one without any activation still has
    a gradient.

    The shares are those of the samples averaged over, hence of a batch in training (the authors: of the whole set).
    """

    columns = 3

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Cross-entropy if disease, cross-entropy if healthy, label: `(B, 3)`."""
        return torch.stack([labels * negative_log(out.o), (1 - labels) * negative_log(1 - out.x), labels], dim=1)

    def finish(self, means: Tensor) -> Tensor:
        """Each class by the share of the other."""
        disease, healthy, share = means.unbind()
        return (1 - share) * disease + share * healthy
