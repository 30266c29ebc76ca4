"""Marking the pixels that only disease samples have, and refitting Fisher's discriminant to the marks, in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compseg.comparative.pseudo_labels.spectra import Part, Spectra

CONVERGED = 0.001  # share of pixels whose mark may still change when marking ends
ROUNDS = 30  # of marking and refitting, at most


class Fit(NamedTuple):
    """The fitted state, tensors; each is a buffer of `FisherPseudoLabels`.

    Filter `(C,)`; the level above which a pixel is marked; the mean spectrum `(C,)` of the highest-scoring healthy
    sample; the marked share; and the two parts of the `ReferenceMode`.
    """

    filter: Tensor
    level: Tensor
    highest: Tensor
    share: Tensor
    own: Tensor
    stand_in: Tensor


class ReferenceMode(NamedTuple):
    """What a pixel is compared with: its own sample, with or without a stand-in for it, or nothing."""

    own: bool
    stand_in: bool


class Marking:
    """Marking and refitting in one mode, to a part of the samples.

    Args:
        spectra: Of all samples.
        part: Those to fit to.
        mode: What a pixel is compared with.
        shrinkage: Of covariances towards a multiple of the identity.

    Attributes:
        direction: To score pixels along in the next round, `(C,)`.
        fit: Of the last round.
        scores: By which it marked, `(N,)`.
        converged: Whether the marks have.
    """

    fit: Fit
    scores: Tensor

    def __init__(self, spectra: Spectra, part: Part, mode: ReferenceMode, shrinkage: float) -> None:
        self.spectra, self.part, self.mode, self.shrinkage, self.converged = spectra, part, mode, shrinkage, False
        self.healthy = part.samples & ~spectra.disease & (spectra.sizes > 0)
        self.sizes, nothing = (spectra.sizes * part.samples).double()[:, None], torch.zeros_like(spectra.means)
        self.direction = self.start()
        self.counts, self.sums = torch.zeros_like(self.sizes), nothing
        self.marked = torch.zeros_like(part.mixed.pixel, dtype=torch.bool)

    def start(self) -> Tensor:
        """The direction `(C,)` of the first round."""
        # From the labels: the axis of largest variance ratio marked another class on Woods (docs/research/lab-log.md).
        counts = self.sizes * self.spectra.disease[:, None]
        return self.refitted(counts, self.spectra.means * counts, torch.zeros_like(self.spectra.means))

    def share_and_level(self, mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """What share of disease samples' pixels to mark, and the level above which they lie.

        From the scores of the pixels `part.mixed` of disease samples and `part.clean` of healthy ones, less their
        background.
        """
        return excess_share(mixed, clean)

    def mark(self, scores: Tensor) -> None:
        """Mark by scores `(N,)` along `direction`; unless that hardly changes anything, refit `direction`."""
        of_means = self.spectra.means @ self.direction
        highest = self.spectra.means[of_means.masked_fill(~self.healthy, -torch.inf).argmax()]
        background = self.background(highest)
        of_background = background @ self.direction
        mixed, clean = (
            scores[pixels].double() - of_background[owners] for pixels, owners in (self.part.mixed, self.part.clean)
        )
        share, level = self.share_and_level(mixed, clean)
        self.fit, self.scores = Fit(self.direction, level, highest, share, *map(torch.tensor, self.mode)), scores
        before, self.marked = self.marked, mixed > level
        changed = (self.marked != before).nonzero()[:, 0]
        self.converged = len(changed) < CONVERGED * len(mixed)
        if self.converged:
            return
        # Only the pixels whose mark changes change the sums over marked pixels.
        self.sums += self.spectra.sums(self.part.mixed.pixel[changed], 2 * self.marked[changed].float() - 1)
        self.counts = self.spectra.counts(self.part.mixed.owner[self.marked]).double()[:, None]
        self.direction = self.refitted(self.counts, self.sums, background)

    def background(self, highest: Tensor) -> Tensor:
        """What each sample's pixels are compared with, `(S, C)`: the mean of those that are not marked.

        With a stand-in, the mean spectrum of the `highest`-scoring healthy sample replaces a mean that scores higher
        still, and one that does not exist because all pixels are marked.
        """
        if not self.mode.own:
            return torch.zeros_like(self.sums)
        rest, means = self.sizes - self.counts, self.spectra.means
        own = torch.where(rest > 0, (means * self.sizes - self.sums) / rest.clamp_min(1), means)
        if not self.mode.stand_in:
            return own
        stands_in = (rest[:, 0] == 0) | (own @ self.direction > highest @ self.direction)
        return torch.where(stands_in[:, None], highest, own)

    def refitted(self, counts: Tensor, sums: Tensor, background: Tensor) -> Tensor:
        """Fisher's discriminant `(C,)` between marked and all other pixels, each less its sample's background.

        Args:
            counts: Of the marked pixels of each sample, `(S, 1)`.
            sums: Of their spectra, `(S, C)`.
            background: Of each sample, `(S, C)`.
        """
        ones, zeros = (
            ((total - number * background).sum(0), number.sum())
            for number, total in ((counts, sums), (self.sizes - counts, self.spectra.means * self.sizes - sums))
        )
        # The scatter about the sample's means is known; what is added moves the centre to zero, then to both classes'.
        offsets = self.spectra.means - background
        moments = self.part.within + (offsets * self.sizes).T @ offsets
        return fisher(moments, ones, zeros, self.shrinkage)


def mark_and_refit(spectra: Spectra, fits: Sequence[Marking], rounds: Iterable[object]) -> None:
    """Mark and refit until the marks of each converge."""
    for _ in rounds:
        if not (active := [fit for fit in fits if not fit.converged]):
            break
        for fit, scores in zip(active, spectra.scores(torch.stack([fit.direction for fit in active])), strict=True):
            fit.mark(scores)


def mark(score: Tensor, tissue: Tensor, fit: Fit) -> Tensor:
    """Where the scores `(B, 1, H, W)` indicate disease, for any label: bool of that shape."""
    marked = torch.zeros_like(tissue)
    highest = torch.where(fit.stand_in, fit.highest @ fit.filter, torch.inf)
    # The background of marking is the unmarked pixels, so start with nothing marked and repeat until it is stable.
    for _ in range(ROUNDS):
        rest = (tissue & ~marked).to(score.dtype)
        count = rest.sum((2, 3), keepdim=True)
        mean = (score * rest).sum((2, 3), keepdim=True) / count.clamp_min(1)
        background = torch.where(count > 0, mean.minimum(highest), highest)
        # torch.where instead of `if`, which would wait for the device.
        before, marked = marked, tissue & (score - torch.where(fit.own, background, 0.0) > fit.level)
        if unchanged(marked, before):
            break
    return marked


def unchanged(marked: Tensor, before: Tensor) -> bool:
    """Whether marks no longer change, on a processor; any other device is not asked, because that means to wait.

    Nor is a graph for export, which cannot end early; more rounds change nothing.
    """
    return marked.device.type == "cpu" and not torch.compiler.is_exporting() and torch.equal(marked, before)


def excess_share(mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """The largest difference between the shares of two sets of scores above a level.

    With it the level above which that share of `mixed` lies.
    """
    ordered = [in_order(scores) for scores in (mixed, clean)]
    levels = quantiles(ordered[0], torch.linspace(0, 1, 1001, dtype=mixed.dtype, device=mixed.device))
    above = [1 - torch.searchsorted(scores, levels, right=True) / len(scores) for scores in ordered]
    # At least one pixel is marked, and a tenth is not: the refit needs both.
    # Not divided by one less the healthy share: that gave .63 for a true .26, this never more than .37
    # (docs/research/lab-log.md, 2026-11-22).
    share = (above[0] - above[1]).max().clamp(min=1 / len(mixed), max=0.9)
    return share, quantiles(ordered[0], 1 - share.to(mixed.dtype))


def in_order(scores: Tensor) -> Tensor:
    """Scores `(n,)` in rising order."""
    # Of 100,000 numbers 1 ms, where torch takes 28 on a processor.
    return scores.sort().values if scores.is_cuda else torch.from_numpy(np.sort(scores.numpy()))


def quantiles(ordered: Tensor, shares: Tensor) -> Tensor:
    """Quantiles of what is in order, between two of its numbers in proportion."""
    places = shares * (len(ordered) - 1)
    below = places.long()
    return torch.lerp(ordered[below], ordered[places.ceil().long()], places - below)


def fisher(moments: Tensor, ones: tuple[Tensor, Tensor], zeros: tuple[Tensor, Tensor], shrinkage: float) -> Tensor:
    """Fisher's discriminant `(C,)` between two sets of spectra, by the pooled within-class covariance.

    Args:
        moments: Sum of the products of all their channels, `(C, C)`.
        ones: Sum `(C,)` and number of the spectra of one set.
        zeros: Those of the other.
        shrinkage: Towards a multiple of the identity, which makes it invertible, also with more channels than pixels.
    """
    (one, m), (zero, n) = ((total / number.clamp_min(1), number) for total, number in (ones, zeros))
    pooled = (moments - m * one.outer(one) - n * zero.outer(zero)) / (m + n)
    size = pooled.diagonal().mean().clamp_min(1e-12)
    pooled.diagonal().add_(shrinkage * size)
    direction: Tensor = torch.linalg.solve(pooled, one - zero)
    return direction


def auc(healthy: Tensor, disease: Tensor) -> float:
    """Area under the ROC: how often a disease value is the higher one of a pair, ties counting half."""
    return float((0.5 + 0.5 * (disease[:, None] - healthy).sign()).mean())
