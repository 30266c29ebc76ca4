"""Marking of targets that are a few pixels of a sample."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from compseg.comparative.pseudo_labels.marking import Marking, auc, in_order, quantiles

CANDIDATES, EACH = 256, 3  # spectra that such a target may have, in all and of a disease sample, about
# Shares of healthy pixels above which such a target may lie: first and last power of ten, number.
TAILS = (-4.5, -1.0, 36)


class SmallTargets(Marking):
    """Marking of targets that are a few pixels, and far less than a hundredth, of the disease samples.

    Between the means of disease and healthy samples they are lost, and so is their share among what makes the samples
    differ by chance. So it starts along one of the spectra that lie farthest off in disease samples, the one whose
    highest score in a sample tells the labels best (as in multiple-instance target detection: Zare, Jiao and Glenn,
    IEEE TPAMI 40:2342, 2018); and it marks above the level at which the share of a disease sample exceeds that of a
    healthy one most clearly, by Welch's t.
    """

    def start(self) -> Tensor:
        """The whitened direction `(C,)` towards the best candidate."""
        directions = self.candidates()
        highest = torch.stack(list(self._highest(directions)))
        labels = self.spectra.disease[self._samples()]
        return directions[max(range(len(directions)), key=lambda k: auc(highest[~labels, k], highest[labels, k]))]

    def candidates(self) -> Tensor:
        """Directions `(K, C)`, of unit noise, towards the spectra of disease samples that are farthest from the mean.

        By Mahalanobis distance from the mean of their own sample.
        """
        noise = self.part.within / self.sizes.sum()
        noise.diagonal().add_(self.shrinkage * noise.diagonal().mean().clamp_min(1e-12))
        precision = torch.linalg.inv(noise)
        disease = (self.part.samples & self.spectra.disease & (self.spectra.sizes > 0)).nonzero()[:, 0].tolist()
        each = min(EACH, max(1, CANDIDATES // len(disease)))
        directions = torch.cat([self._farthest(sample, precision, each) for sample in disease])
        return directions / (directions @ noise * directions).sum(1, keepdim=True).sqrt().clamp_min(1e-12)

    def _farthest(self, sample: int, precision: Tensor, number: int) -> Tensor:
        deviations = self._deviations(sample)
        distances = (deviations @ precision.to(deviations) * deviations).sum(1)
        return deviations[distances.topk(min(number, len(distances))).indices].double() @ precision

    def _highest(self, directions: Tensor) -> Iterator[Tensor]:
        """The highest score of each sample of the part along each direction `(K,)`."""
        for sample in self._samples().tolist():
            deviations = self._deviations(sample)
            yield (deviations @ directions.to(deviations).T).amax(0)

    def _samples(self) -> Tensor:
        return (self.part.samples & (self.spectra.sizes > 0)).nonzero()[:, 0]

    def _deviations(self, sample: int) -> Tensor:
        """The pixels of a sample less their mean, `(n, C)`."""
        first = int(self.spectra.sizes[:sample].sum())
        pixels = self.spectra.pixels[first : first + int(self.spectra.sizes[sample])].to(self.spectra.exact)
        return pixels - self.spectra.means[sample].to(pixels)

    def share_and_level(self, mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """By Welch's t of the samples' shares above levels in the upper tail of healthy scores."""
        tails = 1 - torch.logspace(*TAILS, dtype=clean.dtype, device=clean.device).flip(0)
        levels = quantiles(in_order(clean), tails)
        disease, healthy = (
            shares_above(scores, self.spectra.counts(owner), levels)
            for scores, owner in ((mixed, self.part.mixed.owner), (clean, self.part.clean.owner))
        )
        variance = disease.var(0, correction=0) / len(disease) + healthy.var(0, correction=0) / len(healthy)
        error = variance.sqrt().clamp_min(1e-12)
        level = levels[((disease.mean(0) - healthy.mean(0)) / error).argmax()]
        share = (mixed > level).to(mixed.dtype).mean().clamp(min=1 / len(mixed), max=0.9)
        return share, level


def shares_above(scores: Tensor, sizes: Tensor, levels: Tensor) -> Tensor:
    """The share of each sample's scores above each of some levels, `(S, L)`, of those samples that have any.

    Args:
        scores: Sample after sample, `(n,)`.
        sizes: How many are each sample's, `(S,)`.
        levels: In rising order, `(L,)`.
    """
    sizes = sizes[sizes > 0]
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    below = torch.searchsorted(levels, scores)  # how many levels a score exceeds
    counts = torch.bincount(owner * (len(levels) + 1) + below, minlength=len(sizes) * (len(levels) + 1))
    above = counts.view(len(sizes), -1).flip(1).cumsum(1).flip(1)[:, 1:]
    return above.to(scores.dtype) / sizes[:, None]
