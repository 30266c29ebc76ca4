"""Losses: what the sample labels, or truth, ask of a head's output.

Each is `finish(mean over samples of statistics)`, so it is the same number on one device or eight.
"""
# ruff: noqa: ARG002  # all objectives share one signature; few read all of it

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.pools import masked_mean
from compseg.comparative.transfers import Sigma
from compseg.errors import CompsegError, require


def mean_over_ranks(local_mean: Tensor) -> Tensor:
    """The mean over all ranks, with the gradient of this rank's own mean.

    DistributedDataParallel averages gradients over the ranks, so each rank must contribute its own part and no more.
    The ranks' batches must have the same size. Without a process group this is the identity.

    Args:
        local_mean: `(K,)` on each rank.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return local_mean
    # all_reduce has no gradient and works in place, so it is given a detached copy.
    own = local_mean.detach()
    total = own.clone()
    distributed.all_reduce(total)
    return local_mean + (total / distributed.get_world_size() - own)


class Objective(nn.Module):
    """A loss of the form `finish(mean over samples of statistics)`.

    A subclass defines `statistics` and, unless the loss is the plain mean of one number per sample, `columns` and
    `finish`.

    Args:
        weight: Factor of this objective in a `Sum`.

    Attributes:
        columns: K, how many numbers `statistics` gives per sample.
        needs_truth: Whether `statistics` reads pixel masks.
        reads: What `statistics` reads of a `HeadOutput` beyond logits, activation and tissue: `x`, `o`, and of what the
            head does not fill in `image`, `rotated`, `flipped`, `ema`. A key that acts on something else alone is
            refused, so an objective that says nothing counts as reading `x` and `o`.
    """

    columns: int = 1
    needs_truth: bool = False
    reads: frozenset[str] = frozenset({"x", "o"})

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """Numbers of each sample.

        Args:
            out: The head's output.
            labels: `(B,)` float, 1 = disease, 0 = healthy.
            truth: `(B, 1, H, W)` bool, an expert's mask; read only where `needs_truth`.

        Returns:
            `(B, K)` float32.
        """
        raise NotImplementedError

    def finish(self, means: Tensor) -> Tensor:
        """The loss, a scalar, from the means `(K,)` of the statistics over all samples."""
        return means.sum()

    def forward(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The loss over the batches of all ranks, a scalar; arguments as in `statistics`."""
        return self.finish(mean_over_ranks(self.statistics(out, labels, truth).mean(0)))


class Sum(Objective):
    """The sum of objectives, each times its `weight`.

    Args:
        terms: Objectives by name.
        weight: Factor of the whole in another `Sum`.
    """

    def __init__(self, terms: Mapping[str, Objective], weight: float = 1.0) -> None:
        super().__init__(weight)
        self.terms = nn.ModuleDict(dict(terms))
        self.columns = sum(term.columns for term in terms.values())
        self.needs_truth = any(term.needs_truth for term in terms.values())
        self.reads = frozenset().union(*(term.reads for term in terms.values()))

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The terms' statistics side by side, `(B, K)`."""
        return torch.cat([term.statistics(out, labels, truth) for term in self._terms().values()], dim=1)

    def finish(self, means: Tensor) -> Tensor:
        """The weighted sum of the terms, a scalar."""
        return torch.stack(list(self.parts(means).values())).sum()

    def parts(self, means: Tensor) -> dict[str, Tensor]:
        """What each term adds to the loss, weight included; for logging.

        Args:
            means: `(K,)` means of the statistics over all samples.
        """
        terms = self._terms()
        pieces = torch.split(means, [term.columns for term in terms.values()])
        return {
            name: term.weight * term.finish(piece) for (name, term), piece in zip(terms.items(), pieces, strict=True)
        }

    def _terms(self) -> dict[str, Objective]:
        return dict(self.terms.items())  # type: ignore[arg-type]  # ModuleDict forgets what it holds


def _negative_log(p: Tensor) -> Tensor:
    """`-log(p)` of probabilities, finite at 0."""
    # Added, not clipped: clipped values have no gradient, so an activation that collapsed to 0 could never recover.
    return -torch.log(p + 1e-7)


LOSSES = ("l1", "rmse", "mse", "bce")
TARGETS = ("alpha", "maximum")


class PooledLoss(Objective):
    """Distance of o from T for disease samples and from 0 for healthy ones (paper, section 3.2).

    The paper prints `sum_j |o_j - alpha l_j|` and calls it a root-mean-squared error. The root of one sample's square
    is its absolute value, so the printed formula is `l1` with T = alpha. The mean over samples replaces the sum; to
    RMSprop both are the same, because it divides gradients by their size.

    With T = alpha the cost of a disease sample is lowest at `Sigma.crossing`, about 1.45 alpha, and every pixel beyond
    that costs. `one_sided` charges a disease sample only for what it lacks. T = `maximum` is not attained below x = 1,
    so the remaining slope always asks for more: the incentive that the paper introduces gamma for.

    Args:
        loss: With e = o - T l: `l1` is mean |e|, `mse` mean e^2, `rmse` its root (over all samples of all ranks, so one
            large error damps the gradients of the others), `bce` the cross-entropy of o / maximum as a probability.
        target: T, `alpha` (where the transfer saturates) or `maximum` (its largest value).
        one_sided: Whether a disease sample with o above T costs nothing.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: A value is unknown, or `bce` is combined with another target than `maximum` or with `one_sided`.
    """

    reads = frozenset({"o"})

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
            require(target == "maximum", f"objective.target: bce expected maximum (it reads o / maximum), got {target}")
            require(not one_sided, "objective.one_sided: bce expected false (o never exceeds the maximum), got true")
        self.loss, self.target, self.one_sided = loss, target, one_sided

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """|e|, e^2 or the cross-entropy of each sample, `(B, 1)`."""
        if self.loss == "bce":
            p = (out.o / out.maximum).clamp(max=1)  # rounding can take o just above its maximum
            return (labels * _negative_log(p) + (1 - labels) * _negative_log(1 - p)).unsqueeze(1)
        error = out.o - labels * (out.alpha if self.target == "alpha" else out.maximum)
        if self.one_sided:
            error = error.clamp(max=0).where(labels > 0.5, error)
        return (error.abs() if self.loss == "l1" else error.square()).unsqueeze(1)

    @staticmethod
    def unread(node: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Arguments that do nothing beside the others."""
        beyond = node.get("one_sided") and node.get("target") == "maximum"
        return {"one_sided": ("o never exceeds its maximum", "give target=alpha")} if beyond else {}

    def finish(self, means: Tensor) -> Tensor:
        """The mean, or for `rmse` its root."""
        # The root has no gradient at exactly 0; a loss that small asks for nothing either.
        return means.sum().clamp(min=1e-12).sqrt() if self.loss == "rmse" else means.sum()


class WeightedCrossEntropy(Objective):
    """Cross-entropy on o, each class weighted by the share of the other (OpenVibSpec, `compsegnet.py`, 2022).

    With p the share of disease samples, `(1 - p) mean(-l log o) + p mean(-(1 - l) log(1 - x))`. The authors have o in
    place of x and clip it to [1e-6, 1 - 1e-6]. On the trapezoid's plateau that gives a healthy sample no gradient at
    all, and beyond the plateau it drives the sample's activation up, towards all of the tissue. x rises throughout, so
    here a healthy sample is judged by x. For disease samples o is not clipped, so that one without any activation
    still has a gradient.

    The shares are those of the samples averaged over, hence of a batch in training (the authors: of the whole set).
    """

    columns = 3

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """Cross-entropy if disease, cross-entropy if healthy, label: `(B, 3)`."""
        # Healthy samples by x: on the plateau o has no gradient, and beyond it o falls while x rises.
        return torch.stack([labels * _negative_log(out.o), (1 - labels) * _negative_log(1 - out.x), labels], dim=1)

    def finish(self, means: Tensor) -> Tensor:
        """Each class by the share of the other."""
        disease, healthy, share = means.unbind()
        return (1 - share) * disease + share * healthy


class TwoMap(Objective):
    """`|o+ - alpha l| + |o- - alpha (1 - l)|`, o+ from map 0 and o- from map 1. An experiment, not the paper's method.

    The paper mentions neurons p+, p- and maps a+, a- once and defines neither. Two weight-shared copies of one network,
    fed disease and healthy samples, are the likelier reading, and equal to an ordinary mixed batch. This is the other
    reading: a second map with the labels exchanged. It assumes that healthy samples hold something that disease samples
    lack, which is false for a tumour in healthy tissue.

    Args:
        alpha: Of the transfer of map 1, as in the head.
        beta: As in the head.
        gamma: As in the head.
        weight: Factor in a `Sum`.
    """

    columns = 2
    reads = frozenset({"o"})

    def __init__(self, alpha: float = 0.1, beta: float = 5.0, gamma: float = 0.001, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.transfer = Sigma(alpha, beta, gamma)

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """Distance of the disease map and of the healthy map from their targets, `(B, 2)`.

        Raises:
            CompsegError: The segmenter gives one map.
        """
        maps = out.logits.shape[1]
        require(maps >= 2, f"method.maps: two_map expected 2 (disease, healthy), got {maps}; set method.maps=2")
        healthy = self.transfer(masked_mean(torch.sigmoid(out.logits[:, 1:2]), out.tissue))
        targets = out.alpha * labels, self.transfer.saturation * (1 - labels)
        return torch.stack([(out.o - targets[0]).abs(), (healthy - targets[1]).abs()], dim=1)


class LogBarrier(Objective):
    """Extended log-barrier on the mean activation m of disease samples (Kervadec et al., arXiv 1904.04205).

    `psi(lower - m) + psi(m - upper)` with `psi(z) = -log(-z) / t` for `z <= -1/t^2`, continued by its tangent
    `t z - log(1/t^2) / t + 1/t` beyond: unlike `SizePenalty` it also pushes inside the bounds, away from both. Max-Min
    (arXiv 2011.07221) combines it with `DenseNegatives`, as the method `log_barrier` does. The source raises t from 1
    to 10 during training; here it is constant.

    Args:
        lower: Smallest disease fraction of a disease sample; the paper's alpha.
        upper: Largest.
        t: Steepness of the wall, above 0.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: The bounds are not 0 <= lower < upper <= 1, or t is not above 0.
    """

    reads = frozenset()

    def __init__(self, lower: float = 0.1, upper: float = 0.85, t: float = 5.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(0 <= lower < upper <= 1, f"objective.lower: expected 0 <= lower < upper <= 1, got {lower} and {upper}")
        require(t > 0, f"objective.t: expected a number above 0, got {t}; 1 to 10 is usual")
        self.lower, self.upper, self.t = lower, upper, t

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The two barriers of disease samples, `(B, 1)`."""
        # Not out.x, which is the mean only where the head pools by it.
        mean = masked_mean(out.activation, out.tissue)
        return (labels * (self._barrier(self.lower - mean) + self._barrier(mean - self.upper))).unsqueeze(1)

    def _barrier(self, z: Tensor) -> Tensor:
        joint = 1 / self.t**2
        # Clamped, because the branch that is not taken would give NaN gradients.
        inside = -(-z).clamp(min=joint).log() / self.t
        outside = self.t * z - math.log(joint) / self.t + 1 / self.t
        return inside.where(z <= -joint, outside)


class PixelBCE(Objective):
    """Cross-entropy of every tissue pixel with its sample's label, `(1/N) sum log(1 + exp(z)) - l z`: noisy labels.

    A baseline. In multiple-instance learning this is single-instance learning (Ray and Craven, ICML 2005). The best
    constant answer for a spectrum is the share of disease samples among the samples that contain it.
    """

    reads = frozenset()

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean cross-entropy over the tissue, `(B, 1)`."""
        # From logits: the logarithm of an activation that has rounded to 0 is infinite.
        z = out.logits[:, :1]
        return masked_mean(softplus(z) - labels.view(-1, 1, 1, 1) * z, out.tissue).unsqueeze(1)


class SupervisedPixels(Objective):
    """Cross-entropy of every tissue pixel with the truth, `(1/N) sum log(1 + exp(z)) - t z`; ignores sample labels.

    Truth is what a pseudo-labeller marks, or an expert's mask: then it is the upper bound that the methods are compared
    with, not a method for use.
    """

    needs_truth = True
    reads = frozenset()

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean cross-entropy over the tissue, `(B, 1)`.

        Raises:
            CompsegError: There is no truth.
        """
        if truth is None:
            raise CompsegError("truth: the supervised objective expected pixel masks, got none; use another method")
        # From logits, as in PixelBCE.
        z = out.logits[:, :1]
        return masked_mean(softplus(z) - truth * z, out.tissue).unsqueeze(1)


class PositiveUnlabelled(Objective):
    """Non-negative risk of positive-unlabelled learning on pixels (Kiryo et al., arXiv 1703.00593), signs exchanged.

    Pixels of healthy samples are known negatives; pixels of disease samples are unlabelled, a share pi of them
    positive. With R+ and R- the mean logistic loss of calling pixels disease or healthy,
    `risk = (1 - pi) R-(healthy) + max(0, R+(disease) - (1 - pi) R+(healthy))`.
    The bracket estimates pi times the loss on the hidden positives. A network that memorises the samples drives it
    below 0; there the clamp stops paying (the source's algorithm also steps back up; this is its estimator alone).
    Every sample counts the same, however much tissue it has. A batch without one of the classes has no such estimate
    and skips the bracket.

    Args:
        prior: pi, the mean disease fraction of disease samples, in (0, 1).
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: `prior` is not in (0, 1).
    """

    columns = 4
    reads = frozenset()

    def __init__(self, prior: float = 0.3, weight: float = 1.0) -> None:
        super().__init__(weight)
        expected = "a fraction in (0, 1), the mean share of disease"
        require(0 < prior < 1, f"objective.prior: expected {expected}, got {prior}")
        self.prior = prior

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """Loss of healthy pixels as healthy, as disease, of unlabelled pixels as disease, and the label: `(B, 4)`."""
        z = out.logits[:, :1]
        as_healthy, as_disease = masked_mean(softplus(z), out.tissue), masked_mean(softplus(-z), out.tissue)
        return torch.stack([(1 - labels) * as_healthy, (1 - labels) * as_disease, labels * as_disease, labels], dim=1)

    def finish(self, means: Tensor) -> Tensor:
        """The clamped risk."""
        # A class that is absent has means of 0, and the clamps keep 0 / 0 from being NaN.
        share = means[3]
        healthy = means[:2] / (1 - share).clamp(min=1e-7)
        hidden = means[2] / share.clamp(min=1e-7) - (1 - self.prior) * healthy[1]
        both = (share > 0) & (share < 1)
        risk: Tensor = (1 - self.prior) * healthy[0] + hidden.clamp(min=0).where(both, 0)
        return risk
