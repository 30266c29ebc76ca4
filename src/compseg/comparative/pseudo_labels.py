"""Pseudo-labels without a network: one linear filter of the spectrum that finds the regions only disease samples have.

A network trained on a sample's label alone may use anything that tells samples apart: thickness, patient, array. None
of these explains contrast *within* disease samples that healthy samples do not have. The pseudo-labeller looks for the
one direction in channel space that shows such contrast, in closed form and in seconds, and marks the region it finds; a
segmenter is then trained on that region as on an annotation. The only supervision is still the paper's idea: to compare
what disease samples contain with what healthy ones do not.

Read in this order: `FisherPseudoLabels.fit`, `mark_and_refit`, `mark`, then what they call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

CONVERGED = 0.001  # share of pixels whose mark may still change when marking ends
ROUNDS = 30  # of marking and refitting, at most
Pixels = list[Tensor]  # one (n, C) tensor per sample


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


# The first generalises best: anything that shifts a whole sample, as a new array does, cancels. The others have to
# prove better by this much area under the ROC; where they are needed, they were by .02 to .12
# (docs/research/lab-log.md).
MODES = (ReferenceMode(True, False), ReferenceMode(True, True), ReferenceMode(False, False))
BETTER = 0.01


class FisherPseudoLabels(nn.Module):
    """Self-trained Fisher discriminant on the spectra of small neighbourhoods, each compared with its own sample.

    It starts with Fisher's discriminant (Fisher 1936) between the pixels of disease and of healthy samples. Then, until
    the marked region converges:

    1. subtract from every pixel the mean of its own sample's unmarked pixels, so that patient, thickness and array
       cancel;
    2. mark the share pi of disease-sample pixels that score highest, with pi the largest excess of disease over healthy
       samples above any level (Youden's index of the two distributions, an estimate of the diseased share);
    3. refit the discriminant between marked and all other pixels.

    Step 1 needs unmarked pixels that are healthy. In samples that are disease throughout, they are not: there the mean
    of the highest-scoring healthy sample can stand in wherever a sample's own mean scores higher still. And in tiles of
    a scene that show one field or another, the rest of a sample is no background at all, and step 1 does harm. Neither
    case may be assumed: in a new array all samples may score higher than any healthy one did. So the pseudo-labeller is
    fitted to halves of the samples in each `ReferenceMode`, and uses another than the first only if its marked share
    predicts the labels of the other halves better.

    A network that reads the *contrast*, each pixel less that same background spectrum, generalises to new patients,
    arrays and instruments, because anything they add to all spectra of a sample cancels.

    Args:
        channels: Number of channels C of the preprocessed image.
        neighbourhood: Side in pixels, odd, of the square whose tissue mean is scored: larger means less noise, but
            coarser edges.
        supervises: Whether the objective takes the marked region for truth; if not, the network is given the contrast
            and nothing else.
        pixels: How many tissue pixels to fit to, of all samples together.
        shrinkage: Of covariances towards a multiple of the identity.

    Attributes:
        highest: Mean spectrum of the highest-scoring healthy sample.
        share: pi of the last round, in [0, 1].
        own: Whether a pixel is compared with its own sample.
        stand_in: Whether the highest-scoring healthy sample replaces a sample's own mean that scores higher.
        held_out_auc: How well the marked share predicts the labels of samples it was not fitted to, area under the
            ROC; NaN before fitting, and with fewer than two samples of a class.
    """

    filter: Tensor
    level: Tensor
    highest: Tensor
    share: Tensor
    own: Tensor
    stand_in: Tensor

    def __init__(
        self,
        channels: int,
        neighbourhood: int = 5,
        supervises: bool = True,
        pixels: int = 200_000,
        shrinkage: float = 1e-3,
    ) -> None:
        super().__init__()
        self.neighbourhood, self.supervises, self.pixels, self.shrinkage = neighbourhood, supervises, pixels, shrinkage
        self.held_out_auc = math.nan
        self.register_buffer("filter", torch.zeros(channels))
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("highest", torch.zeros(channels))
        self.register_buffer("share", torch.tensor(0.0))
        self.register_buffer("own", torch.tensor(True))
        self.register_buffer("stand_in", torch.tensor(False))

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int = 0) -> None:
        """Find the filter and the level.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time.
            count: Number of samples, each of which contributes its share of `pixels`.
            seed: Of the choice of pixels.
        """
        generator = torch.Generator().manual_seed(seed)
        classes: tuple[Pixels, Pixels] = ([], [])
        for image, tissue, label in samples:
            # In double precision: neighbouring channels are nearly collinear, so their covariance is hard to invert.
            spectra = local_mean(image[None], tissue[None], self.neighbourhood)[0][:, tissue[0]].T.double()
            chosen = torch.randperm(len(spectra), generator=generator)[: max(1, self.pixels // count)]
            classes[label].append(spectra[chosen])
        aucs = [held_out_auc(*classes, self.shrinkage, mode, seed) for mode in MODES]
        best = max(range(len(MODES)), key=lambda number: aucs[number] - BETTER * (number > 0))
        self.held_out_auc = aucs[best]
        for name, value in mark_and_refit(*classes, self.shrinkage, MODES[best])._asdict().items():
            getattr(self, name).copy_(value)

    def forward(self, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """The marked region, `(B, 1, H, W)` bool: nothing in healthy samples."""
        return self.marked(self.score(image, tissue), tissue) & (labels > 0)[:, None, None, None]

    def score(self, image: Tensor, tissue: Tensor) -> Tensor:
        """How much a pixel's neighbourhood looks like disease.

        Preprocessed `(B, C, H, W)` and tissue `(B, 1, H, W)` to `(B, 1, H, W)`.
        """
        # Filtering first leaves one channel to average, and both are linear.
        filtered = torch.einsum("bchw,c->bhw", image, self.filter)[:, None]
        return local_mean(filtered, tissue, self.neighbourhood)

    def marked(self, score: Tensor, tissue: Tensor) -> Tensor:
        """Where scores `(B, 1, H, W)` of whole samples indicate disease, for any label: bool of that shape."""
        return mark(score, tissue, Fit(*(getattr(self, name) for name in Fit._fields)))

    def contrast(self, image: Tensor, tissue: Tensor) -> Tensor:
        """The input of the network: each pixel less the background spectrum of its own sample, zero off tissue.

        Preprocessed images `(B, C, H, W)` of whole samples, and tissue `(B, 1, H, W)`, to `(B, C, H, W)`. Where pixels
        are not compared with their own sample (`own`), images stay as they are.
        """
        ordinary = tissue & ~self.marked(self.score(image, tissue), tissue)
        background = self.background(sum_of_spectra(image, ordinary), ordinary.sum((2, 3)))
        return self.subtract_background(image, tissue, background)

    def background(self, total: Tensor, count: Tensor) -> Tensor:
        """What a sample's pixels are compared with: the mean spectrum of its unmarked pixels.

        With `stand_in`, the spectrum of the highest-scoring healthy sample replaces a mean that scores higher. From the
        sum of the unmarked spectra `(B, C)` and their number `(B, 1)` to `(B, C)`.
        """
        mean = total / count.clamp_min(1)
        lower = (mean @ self.filter)[:, None] <= self.highest @ self.filter
        own = (count > 0) & (lower | ~self.stand_in)
        return torch.where(own, mean, self.highest) * self.own

    def subtract_background(self, image: Tensor, tissue: Tensor, background: Tensor) -> Tensor:
        """The image `(B, C, H, W)` less a background spectrum `(B, C)` on tissue."""
        # Multiplied, because torch.where would lose the channels_last layout; preprocessing leaves no NaN.
        return (image - background[:, :, None, None]) * tissue


def mark_and_refit(healthy: Pixels, disease: Pixels, shrinkage: float, mode: ReferenceMode) -> Fit:
    """Mark and refit in one mode until the marks converge."""
    means = torch.stack([pixels.mean(0) for pixels in healthy])
    clean, mixed = torch.cat(healthy), torch.cat(disease)
    # From the labels: the axis of largest variance ratio marked another class on Woods (docs/research/lab-log.md).
    direction = fisher(mixed, clean, shrinkage)
    # Healthy samples have no marked pixels, so their backgrounds never change.
    if mode.own:
        clean = torch.cat([pixels - mean for pixels, mean in zip(healthy, means, strict=True)])
    marked = torch.zeros(len(mixed), dtype=torch.bool)
    for _ in range(ROUNDS):
        before, highest = marked, means[(means @ direction).argmax()]
        if mode.own:
            stand_in = highest if mode.stand_in else None
            parts = zip(disease, torch.split(before, [len(pixels) for pixels in disease]), strict=True)
            mixed = torch.cat([pixels - own_background(pixels, part, stand_in, direction) for pixels, part in parts])
        share, level = excess_share(mixed @ direction, clean @ direction)
        marked = mixed @ direction > level
        fit = Fit(direction, level, highest, share, *map(torch.tensor, mode))
        if (marked != before).double().mean() < CONVERGED:
            break
        direction = fisher(mixed[marked], torch.cat([mixed[~marked], clean]), shrinkage)
    return fit


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
        marked = tissue & (score - torch.where(fit.own, background, 0.0) > fit.level)
    return marked


def sum_of_spectra(image: Tensor, chosen: Tensor) -> Tensor:
    """Sum `(B, C)` of the spectra of chosen pixels, from `(B, C, H, W)` and bool `(B, 1, H, W)`."""
    return torch.einsum("bchw,bhw->bc", image, chosen[:, 0].to(image.dtype))


def own_background(pixels: Tensor, marked: Tensor, stand_in: Tensor | None, direction: Tensor) -> Tensor:
    """What a sample's spectra `(n, C)` are compared with, `(C,)`: the mean of those that are not marked.

    A `stand_in`, the mean spectrum of the highest-scoring healthy sample, replaces a mean that scores higher still, and
    one that does not exist because all pixels are marked.
    """
    if marked.all():
        return pixels.mean(0) if stand_in is None else stand_in
    own = pixels[~marked].mean(0)
    return own if stand_in is None or own @ direction <= stand_in @ direction else stand_in


def local_mean(image: Tensor, tissue: Tensor, side: int) -> Tensor:
    """Mean over the tissue pixels of the `side` x `side` square around each pixel.

    `(B, C, H, W)` to the same shape, zero off tissue.
    """
    # The pooled mask divides the pooled values, so pixels outside the tissue and the image do not count.
    inside = tissue.to(image.dtype)
    total, share = (avg_pool2d(x, side, stride=1, padding=side // 2) for x in (image * inside, inside))
    return torch.where(tissue, total / share.clamp_min(1e-6), 0.0)


def excess_share(mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """The largest difference between the shares of two sets of scores above a level.

    With it the level above which that share of `mixed` lies.
    """
    levels = torch.quantile(mixed, torch.linspace(0, 1, 1001, dtype=mixed.dtype))
    above = [
        1 - torch.searchsorted(scores.sort().values, levels, right=True) / len(scores) for scores in (mixed, clean)
    ]
    # At least one pixel is marked, and a tenth is not: the refit needs both.
    # Not divided by one less the healthy share: that gave .63 for a true .26, this never more than .37
    # (docs/research/lab-log.md, 2026-11-22).
    share = (above[0] - above[1]).max().clamp(min=1 / len(mixed), max=0.9)
    return share, torch.quantile(mixed, 1 - share.to(mixed.dtype))


def fisher(ones: Tensor, zeros: Tensor, shrinkage: float) -> Tensor:
    """Fisher's discriminant `(C,)` between two sets of spectra `(n, C)`, by the pooled within-class covariance."""
    pooled = covariance(ones) * len(ones) + covariance(zeros) * len(zeros)
    pooled = pooled / (len(ones) + len(zeros))
    # A multiple of the identity makes it invertible, also with more channels than pixels.
    size = pooled.diagonal().mean().clamp_min(1e-12)
    shrunk = pooled + shrinkage * size * torch.eye(len(pooled), dtype=pooled.dtype)
    direction: Tensor = torch.linalg.solve(shrunk, ones.mean(0) - zeros.mean(0))
    return direction


def covariance(pixels: Tensor) -> Tensor:
    """Of spectra `(n, C)`, about their mean and divided by n: `(C, C)`, also for one channel."""
    centred = pixels - pixels.mean(0)
    return centred.T @ centred / len(pixels)


def held_out_auc(healthy: Pixels, disease: Pixels, shrinkage: float, mode: ReferenceMode, seed: int) -> float:
    """How well the marked share of one half of the samples predicts their labels, fitted to the other half.

    Mean area under the ROC of both ways round; NaN with fewer than two samples of a class.
    """
    if min(len(healthy), len(disease)) < 2:
        return math.nan
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(samples), generator=generator).tolist() for samples in (healthy, disease)]
    healthy, disease = ([samples[i] for i in order] for samples, order in zip((healthy, disease), orders, strict=True))
    aucs = []
    for half in (0, 1):  # every other sample of a shuffled class, so both halves hold both classes
        fit = mark_and_refit(healthy[half::2], disease[half::2], shrinkage, mode)
        # By the share, because scores hardly tell the modes apart (docs/research/lab-log.md, 2026-11-23).
        shares = [
            torch.stack([share_of(pixels, fit) for pixels in samples[1 - half :: 2]]) for samples in (healthy, disease)
        ]
        aucs.append(auc(*shares))
    return sum(aucs) / 2


def share_of(pixels: Tensor, fit: Fit) -> Tensor:
    """The share of a sample's spectra `(n, C)` that would be marked."""
    score = (pixels @ fit.filter)[None, None, None]
    return mark(score, torch.ones_like(score, dtype=torch.bool), fit).double().mean()


def auc(healthy: Tensor, disease: Tensor) -> float:
    """Area under the ROC: how often a disease value is the higher one of a pair, ties counting half."""
    return float((0.5 + 0.5 * (disease[:, None] - healthy).sign()).mean())
