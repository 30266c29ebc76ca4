"""Pseudo-labels without a network: one linear filter of the spectrum that tells disease samples' own regions apart.

A network that is asked for a sample's label alone may answer by anything that tells samples apart: thickness, patient,
array. What no such cue can explain is contrast *within* disease samples that healthy samples do not have. The
pseudo-labeller looks for the one direction in channel space that shows it, in closed form and in seconds, and marks the
region it finds; a segmenter is then trained on that region as on an annotation. The paper's idea, comparing what
disease samples hold with what healthy ones do not, stays the only supervision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

SETTLED = 0.001  # share of pixels whose mark may still change when marking ends
ROUNDS = 30  # of marking and refitting, at most
Pixels = list[Tensor]  # one (n, C) tensor a sample


class Found(NamedTuple):
    """What fitting finds, tensors.

    Filter `(C,)`; the level above which a pixel is marked; the mean spectrum `(C,)` of the highest-scoring healthy
    sample; the marked share; whether pixels are judged against their own sample, and whether the highest-scoring
    healthy one stands in for it.
    """

    filter: Tensor
    level: Tensor
    highest: Tensor
    share: Tensor
    own: Tensor
    stand_in: Tensor


class Way(NamedTuple):
    """How a pixel is judged: against its own sample, with or without a stand-in for it, or as it is."""

    own: bool
    stand_in: bool


# The first bears most: whatever moves a whole sample, as a new array does, cancels. The others have to prove better.
WAYS = (Way(True, False), Way(True, True), Way(False, False))
BETTER = 0.01  # area under the ROC


class FisherPseudoLabels(nn.Module):
    """Self-trained Fisher discriminant on the spectra of small neighbourhoods, each judged against its own sample.

    Start: Fisher's discriminant (Fisher 1936) between the pixels of disease and of healthy samples. Then, until the
    marked region settles:

    1. take from every pixel the mean of its own sample's unmarked pixels, so that patient, thickness and array cancel;
    2. mark the share pi of disease-sample pixels that score highest, with pi the largest excess of disease over healthy
       samples above any level (Youden's index of the two distributions, an estimate of the diseased share);
    3. refit the discriminant between marked and all other pixels.

    Where samples are disease throughout, their unmarked mean is disease too: there the mean of the highest-scoring
    healthy sample stands in wherever a mean scores higher still. Where a sample's rest is no reference at all, as in
    tiles of a scene where it is this field or that, step 1 does harm. Neither may be supposed: in a new array all
    samples may score higher than any healthy one did. So the pseudo-labeller is fitted to halves of the samples in each
    of these ways, and one other than the first is taken if its marked share tells the labels of the other halves
    better.

    A network that is given the *contrast*, each pixel less that same reference, bears new patients, arrays and
    instruments, for whatever they add to all spectra of a sample cancels.

    Args:
        channels: Number of channels C of the preprocessed image.
        reach: Side in pixels, odd, of the neighbourhood whose tissue mean is scored: it trades noise against edges.
        teaches: Whether the objective takes the marked region for truth; if not, the network is given the contrast and
            nothing else.
        pixels: Tissue pixels of all samples together that are looked at for fitting.
        shrinkage: Of covariances towards a multiple of the identity.

    Attributes:
        highest: Mean spectrum of the highest-scoring healthy sample.
        share: pi of the last round, in [0, 1].
        own: Whether a pixel is judged against its own sample.
        stand_in: Whether the highest-scoring healthy sample stands in where its own scores higher.
        held_out_auc: How well the marked share tells the labels of samples that it was not fitted to, area under the
            ROC; NaN before fitting, and with fewer than two samples of a class.
    """

    filter: Tensor
    level: Tensor
    highest: Tensor
    share: Tensor
    own: Tensor
    stand_in: Tensor

    def __init__(
        self, channels: int, reach: int = 5, supervises: bool = True, pixels: int = 200_000, shrinkage: float = 1e-3
    ) -> None:
        super().__init__()
        self.reach, self.supervises, self.pixels, self.shrinkage = reach, supervises, pixels, shrinkage
        self.held_out_auc = math.nan
        self.register_buffer("filter", torch.zeros(channels))
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("highest", torch.zeros(channels))
        self.register_buffer("share", torch.tensor(0.0))
        self.register_buffer("own", torch.tensor(True))
        self.register_buffer("stand_in", torch.tensor(False))

    def score(self, image: Tensor, tissue: Tensor) -> Tensor:
        """How much a pixel's neighbourhood looks like disease.

        Preprocessed `(B, C, H, W)` and tissue `(B, 1, H, W)` to `(B, 1, H, W)`.
        """
        # Filtering first leaves one channel to average, and both are linear.
        filtered = torch.einsum("bchw,c->bhw", image, self.filter)[:, None]
        return local_mean(filtered, tissue, self.reach)

    def forward(self, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """The marked region, `(B, 1, H, W)` bool: nothing in healthy samples."""
        return self.marked(self.score(image, tissue), tissue) & (labels > 0)[:, None, None, None]

    def marked(self, score: Tensor, tissue: Tensor) -> Tensor:
        """Where scores `(B, 1, H, W)` of whole samples say disease, whatever the label: bool of that shape."""
        found = Found(self.filter, self.level, self.highest, self.share, self.own, self.stand_in)
        return mark(score, tissue, found)

    def contrast(self, image: Tensor, tissue: Tensor) -> Tensor:
        """The input of the network: each pixel less the reference of its own sample, zero off tissue.

        Preprocessed images `(B, C, H, W)` of whole samples, and tissue `(B, 1, H, W)`, to `(B, C, H, W)`. Where own
        samples are no reference (`own`), images are left as they are.
        """
        ordinary = tissue & ~self.marked(self.score(image, tissue), tissue)
        return self.subtract_background(
            image, tissue, self.background(sum_of_spectra(image, ordinary), ordinary.sum((2, 3)))
        )

    def background(self, total: Tensor, count: Tensor) -> Tensor:
        """What a sample's pixels are judged against: the mean spectrum of its unmarked pixels.

        The highest-scoring healthy sample's stands in if the labels have it so, where that mean scores higher. From the
        sum of the unmarked spectra `(B, C)` and their number `(B, 1)` to `(B, C)`.
        """
        mean = total / count.clamp_min(1)
        lower = (mean @ self.filter)[:, None] <= self.highest @ self.filter
        own = (count > 0) & (lower | ~self.stand_in)
        return torch.where(own, mean, self.highest) * self.own

    def subtract_background(self, image: Tensor, tissue: Tensor, background: Tensor) -> Tensor:
        """The image `(B, C, H, W)` less a reference `(B, C)` on tissue."""
        # Multiplied rather than chosen, which would lose the layout with channels last; preprocessing leaves no NaN.
        return (image - background[:, :, None, None]) * tissue

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int = 0) -> None:
        """Find the filter and the level.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time.
            count: Number of samples, so that each may give its part of `pixels`.
            seed: Of the choice of pixels.
        """
        generator = torch.Generator().manual_seed(seed)
        kinds: tuple[Pixels, Pixels] = ([], [])
        for image, tissue, label in samples:
            spectra = local_mean(image[None], tissue[None], self.reach)[0][:, tissue[0]].T.double()
            chosen = torch.randperm(len(spectra), generator=generator)[: max(1, self.pixels // count)]
            kinds[label].append(spectra[chosen])
        areas = [held_out(*kinds, self.shrinkage, way, seed) for way in WAYS]
        best = max(range(len(WAYS)), key=lambda place: areas[place] - BETTER * (place > 0))
        self.held_out_auc = areas[best]
        for name, value in settle(*kinds, self.shrinkage, WAYS[best])._asdict().items():
            getattr(self, name).copy_(value)


def mark(score: Tensor, tissue: Tensor, found: Found) -> Tensor:
    """Where the scores `(B, 1, H, W)` say disease, whatever the label: bool of that shape."""
    marked = torch.zeros_like(tissue)
    highest = torch.where(found.stand_in, found.highest @ found.filter, torch.inf)
    # Unmarked pixels are the reference for marking: from nothing marked, this grows to where it no longer changes.
    for _ in range(ROUNDS):
        rest = (tissue & ~marked).to(score.dtype)
        count = rest.sum((2, 3), keepdim=True)
        mean = (score * rest).sum((2, 3), keepdim=True) / count.clamp_min(1)
        background = torch.where(count > 0, mean.minimum(highest), highest)
        # Chosen and not asked for, as asking would wait for the device.
        marked = tissue & (score - torch.where(found.own, background, 0.0) > found.level)
    return marked


def sum_of_spectra(image: Tensor, chosen: Tensor) -> Tensor:
    """Sum `(B, C)` of the spectra of chosen pixels, from `(B, C, H, W)` and bool `(B, 1, H, W)`."""
    return torch.einsum("bchw,bhw->bc", image, chosen[:, 0].to(image.dtype))


def settle(healthy: Pixels, disease: Pixels, shrinkage: float, way: Way) -> Found:
    """Mark and refit, in one way, until the marks settle."""
    means = torch.stack([pixels.mean(0) for pixels in healthy])
    clean, mixed = torch.cat(healthy), torch.cat(disease)
    direction = fisher(mixed, clean, shrinkage)
    if way.own:
        clean = torch.cat([pixels - mean for pixels, mean in zip(healthy, means, strict=True)])
    marked = torch.zeros(len(mixed), dtype=torch.bool)
    for _ in range(ROUNDS):
        before, highest = marked, means[(means @ direction).argmax()]
        if way.own:
            parts = zip(disease, torch.split(before, [len(pixels) for pixels in disease]), strict=True)
            mixed = torch.cat(
                [
                    pixels - own_background(pixels, part, highest if way.stand_in else None, direction)
                    for pixels, part in parts
                ]
            )
        share, level = excess_share(mixed @ direction, clean @ direction)
        marked = mixed @ direction > level
        found = Found(direction, level, highest, share, *map(torch.tensor, way))
        if (marked != before).double().mean() < SETTLED:
            break
        direction = fisher(mixed[marked], torch.cat([mixed[~marked], clean]), shrinkage)
    return found


def held_out(healthy: Pixels, disease: Pixels, shrinkage: float, way: Way, seed: int) -> float:
    """How well the marked share of a half of the samples tells their labels, fitted to the other half.

    Mean area under the ROC of both ways round; NaN with fewer than two samples of a class.
    """
    if min(len(healthy), len(disease)) < 2:
        return math.nan
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(kind), generator=generator).tolist() for kind in (healthy, disease)]
    kinds = [[kind[place] for place in order] for kind, order in zip((healthy, disease), orders, strict=True)]
    areas = []
    for half in (0, 1):
        found = settle(kinds[0][half::2], kinds[1][half::2], shrinkage, way)
        areas.append(auc(*(torch.stack([share_of(pixels, found) for pixels in kind[1 - half :: 2]]) for kind in kinds)))
    return sum(areas) / 2


def share_of(pixels: Tensor, found: Found) -> Tensor:
    """The share of a sample's spectra `(n, C)` that would be marked."""
    score = (pixels @ found.filter)[None, None, None]
    return mark(score, torch.ones_like(score, dtype=torch.bool), found).double().mean()


def auc(healthy: Tensor, disease: Tensor) -> float:
    """Area under the ROC: how often a disease value is the higher one of a pair, ties counting half."""
    return float((0.5 + 0.5 * (disease[:, None] - healthy).sign()).mean())


def own_background(pixels: Tensor, marked: Tensor, highest: Tensor | None, direction: Tensor) -> Tensor:
    """What a sample's spectra `(n, C)` are judged against, `(C,)`: the mean of those that are not marked.

    `highest`, the mean spectrum of the healthy sample that scores highest, if it is to stand in and that mean scores
    higher still.
    """
    if marked.all():
        return pixels.mean(0) if highest is None else highest
    own = pixels[~marked].mean(0)
    return own if highest is None or own @ direction <= highest @ direction else highest


def local_mean(image: Tensor, tissue: Tensor, reach: int) -> Tensor:
    """Mean over the tissue pixels of each pixel's `reach` x `reach` neighbourhood.

    `(B, C, H, W)` to the same shape, zero off tissue.
    """
    inside = tissue.to(image.dtype)
    total, share = (avg_pool2d(x, reach, stride=1, padding=reach // 2) for x in (image * inside, inside))
    return torch.where(tissue, total / share.clamp_min(1e-6), 0.0)


def excess_share(mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """The largest difference between the shares of two sets of scores above a level.

    With it the level above which that share of `mixed` lies.
    """
    levels = torch.quantile(mixed, torch.linspace(0, 1, 1001, dtype=mixed.dtype))
    above = [
        1 - torch.searchsorted(scores.sort().values, levels, right=True) / len(scores) for scores in (mixed, clean)
    ]
    share = (above[0] - above[1]).max().clamp(min=1 / len(mixed), max=0.9)
    return share, torch.quantile(mixed, 1 - share.to(mixed.dtype))


def fisher(ones: Tensor, zeros: Tensor, shrinkage: float) -> Tensor:
    """Fisher's discriminant `(C,)` between two sets of spectra `(n, C)`, by the pooled within-class covariance."""
    covariances = [covariance(pixels) * len(pixels) for pixels in (ones, zeros)]
    pooled = sum(covariances[1:], covariances[0]) / (len(ones) + len(zeros))
    direction: Tensor = torch.linalg.solve(shrunk(pooled, shrinkage), ones.mean(0) - zeros.mean(0))
    return direction


def covariance(pixels: Tensor) -> Tensor:
    """Of spectra `(n, C)`, about their mean and over n: `(C, C)`, also for one channel."""
    centred = pixels - pixels.mean(0)
    return centred.T @ centred / len(pixels)


def shrunk(matrix: Tensor, shrinkage: float) -> Tensor:
    """The covariance `(C, C)` with a multiple of the identity added, so that it can be inverted."""
    size = matrix.diagonal().mean().clamp_min(1e-12)
    return matrix + shrinkage * size * torch.eye(len(matrix), dtype=matrix.dtype)
