"""Pseudo-labels without a network: one linear filter of the spectrum that finds the regions only disease samples have.

A network trained on a sample's label alone may use anything that tells samples apart: thickness, patient, array. None
of these explains contrast *within* disease samples that healthy samples do not have. The pseudo-labeller looks for the
one direction in channel space that shows such contrast, in closed form and in seconds, and marks the region it finds; a
segmenter is then trained on that region as on an annotation. The only supervision is still the paper's idea: to compare
what disease samples contain with what healthy ones do not.

Read in this order: `FisherPseudoLabels.fit`, `best_at`, `Marking.mark`, `mark`, then what they call. Many fits are made
to the same pixels, three modes to two halves and to all of them, so what they share is computed once: the scatter
within samples, and in each round one product of all pixels with the directions of all fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, embedding_bag
from torch.nn.utils.rnn import pad_sequence

CONVERGED = 0.001  # share of pixels whose mark may still change when marking ends
ROUNDS = 30  # of marking and refitting, at most
BLOCK = 1024  # pixels of a product: they stay in the cache
# Sides in pixels of the neighbourhood, tried in this order where none is given.
SIDES = (5, 9, 3, 1)
# Area under the ROC of held-out labels by which another side than the first, or looking for small targets, has to be
# better: on tiles of one scene 9
# was by .13, for targets of a few pixels 1 by .2 to .3, elsewhere none by more than .01 (docs/research/lab-log.md).
BETTER_SIDE = 0.05
SMALL_SIDE = 3  # up to which targets of a few pixels are looked for
CANDIDATES, EACH = 256, 3  # spectra that such a target may have, in all and of a disease sample, about
# Shares of healthy pixels above which such a target may lie: first and last power of ten, number.
TAILS = (-4.5, -1.0, 36)
LOW = 0.1  # which disease samples count as those of least disease; one sample alone may be marked by mistake


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
            coarser edges. `auto`: that of `SIDES` by which held-out labels are told best.
        supervises: Whether the objective takes the marked region for truth; if not, the network is given the contrast
            and nothing else.
        pixels: How many tissue pixels to fit to, of all samples together.
        shrinkage: Of covariances towards a multiple of the identity.

    Attributes:
        neighbourhood: As given, or chosen by fitting.
        tried: What held-out labels said of each neighbourhood that was tried, by its side in pixels.
        small: Whether it marks targets of a few pixels (`SmallTargets`).
        highest: Mean spectrum of the highest-scoring healthy sample.
        share: pi of the last round, in [0, 1].
        own: Whether a pixel is compared with its own sample.
        stand_in: Whether the highest-scoring healthy sample replaces a sample's own mean that scores higher.
        low_share: What a tenth of the disease samples fitted to have less than marked, a share of their tissue; NaN
            before fitting.
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
        neighbourhood: int | Literal["auto"] = 5,
        supervises: bool = True,
        pixels: int = 200_000,
        shrinkage: float = 1e-3,
    ) -> None:
        super().__init__()
        self.sides = SIDES if neighbourhood == "auto" else (neighbourhood,)
        self.neighbourhood, self.supervises, self.pixels, self.shrinkage = self.sides[0], supervises, pixels, shrinkage
        self.held_out_auc = self.low_share = math.nan
        self.tried: dict[int, float] = {}
        self.small = False
        self.register_buffer("filter", torch.zeros(channels))
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("highest", torch.zeros(channels))
        self.register_buffer("share", torch.tensor(0.0))
        self.register_buffer("own", torch.tensor(True))
        self.register_buffer("stand_in", torch.tensor(False))

    @torch.no_grad()
    def fit(
        self,
        samples: Iterable[tuple[Tensor, Tensor, int]],
        count: int,
        seed: int = 0,
        rounds: Iterable[object] = range(ROUNDS),
    ) -> None:
        """Find the filter and the level.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time; gone through once for each neighbourhood that is tried.
            count: Number of samples, each of which contributes its share of `pixels`.
            seed: Of the choice of pixels.
            rounds: Of marking and refitting, at most; whoever gives them sees how far it is.
        """
        found: list[BestFit] = []
        for side in self.sides:
            found.append(best_at(side, samples, max(1, self.pixels // count), count, seed, self.shrinkage, rounds))
            # Also where nothing is held out: then nothing can be chosen by it.
            if not found[0].held_out_auc < 1 - BETTER_SIDE:
                break
        best = best_of(
            found, [each.held_out_auc for each in found], [BETTER_SIDE * (each is not found[0]) for each in found]
        )
        self.tried = {each.side: each.held_out_auc for each in found}
        self.neighbourhood, self.small = best.side, best.small
        self.held_out_auc, self.low_share = best.held_out_auc, best.low_share
        for name, value in best.fit._asdict().items():
            getattr(self, name).copy_(value)

    def forward(self, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """The marked region, `(B, 1, H, W)` bool: nothing in healthy samples."""
        return self.marked(self.score(image, tissue), tissue) & (labels > 0)[:, None, None, None]

    def score(self, image: Tensor, tissue: Tensor) -> Tensor:
        """How much a pixel's neighbourhood looks like disease.

        Preprocessed `(B, C, H, W)` and tissue `(B, 1, H, W)` to `(B, 1, H, W)`.
        """
        # Filtering first leaves one channel to average, and both are linear.
        return self.averaged(torch.einsum("bchw,c->bhw", image, self.filter)[:, None], tissue)

    def averaged(self, filtered: Tensor, tissue: Tensor) -> Tensor:
        """The score of spectra's products with the filter, all `(B, 1, H, W)`."""
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
        return (image - background[:, :, None, None]).mul_(tissue)


class BestFit(NamedTuple):
    """The best fit to neighbourhoods of one size, and what held-out labels say of it; see `FisherPseudoLabels`."""

    side: int
    small: bool
    fit: Fit
    held_out_auc: float
    low_share: float


T = TypeVar("T")


def best_of(items: Sequence[T], scores: Sequence[float], margins: Sequence[float]) -> T:
    """That of the highest score, each less a margin."""
    return items[max(range(len(items)), key=lambda number: scores[number] - margins[number])]


def best_at(
    side: int,
    samples: Iterable[tuple[Tensor, Tensor, int]],
    each: int,
    count: int,
    seed: int,
    shrinkage: float,
    rounds: Iterable[object],
) -> BestFit:
    """Fit to neighbourhoods of one size in every way, and choose by held-out labels.

    Args:
        side: Of the neighbourhood in pixels, odd.
        samples: See `choose_spectra`, as for `each` and `count`.
        each: How many pixels of a sample, at most.
        count: Number of samples.
        seed: Of the choice of pixels and of the halves.
        shrinkage: Of covariances towards a multiple of the identity.
        rounds: Of marking and refitting, at most.
    """
    spectra = choose_spectra(samples, side, each, count, seed)
    parts = parts_of(spectra, seed)
    ways: list[tuple[type[Marking], ReferenceMode, float]] = [
        (Marking, mode, BETTER * (mode is not MODES[0])) for mode in MODES
    ]
    if side <= SMALL_SIDE and len(parts) > 1:
        ways.append((SmallTargets, MODES[0], BETTER_SIDE))
    fits = [[kind(spectra, part, mode, shrinkage) for part in parts] for kind, mode, _ in ways]
    mark_and_refit(spectra, [fit for of_way in fits for fit in of_way], rounds)
    aucs, margins = [held_out_auc(spectra, of_way[1:]) for of_way in fits], [margin for _, _, margin in ways]
    (whole, *_), auc_of_best = best_of(list(zip(fits, aucs, strict=True)), aucs, margins)
    marked = shares_of(whole.scores.double(), spectra.sizes, whole.fit)
    low = float(torch.quantile(marked[spectra.disease], LOW))
    return BestFit(side, isinstance(whole, SmallTargets), whole.fit, auc_of_best, low)


class Spectra(NamedTuple):
    """What is fitted to: pixels of all samples, sample after sample.

    Spectra `(N, C)` float32; the sample of each, `(N,)`; and of each sample the number of its pixels `(S,)`, its label
    `(S,)` bool and its mean spectrum `(S, C)` float64.
    """

    pixels: Tensor
    owner: Tensor
    sizes: Tensor
    disease: Tensor
    means: Tensor

    @property
    def exact(self) -> torch.dtype:
        """Of products of pixels: a GPU may round those in float32 to TF32, a processor takes half the time for them."""
        return torch.float64 if self.pixels.is_cuda else torch.float32

    def scores(self, directions: Tensor) -> Tensor:
        """Of all pixels along directions `(K, C)`: `(K, N)`."""
        directions = directions.to(self.exact)
        return torch.cat([directions @ block.to(self.exact).T for block in torch.split(self.pixels, BLOCK)], dim=1)

    def scatter(self, samples: Tensor) -> Tensor:
        """Of the pixels of some samples `(S,)` bool, each about the mean of its own sample: `(C, C)` float64."""
        total = torch.zeros(2 * self.means.shape[1:], dtype=torch.float64, device=self.means.device)
        pixels = torch.split(self.pixels, self.sizes.tolist())
        for sample in samples.nonzero()[:, 0].tolist():
            for block in pixels[sample].split(BLOCK):
                # Centred, so that products in float32 lose nothing that matters.
                centred = block.to(self.exact) - self.means[sample].to(self.exact)
                total += centred.T @ centred
        return total

    def sums(self, places: Tensor, weights: Tensor) -> Tensor:
        """Of each sample the weighted sum `(S, C)` of its spectra at places `(n,)` of all pixels, in rising order."""
        counts = self.counts(self.owner[places])
        total = embedding_bag(places, self.pixels, starts(counts), mode="sum", per_sample_weights=weights)
        return total.double()

    def counts(self, owners: Tensor) -> Tensor:
        """How many of some pixels are each sample's, `(S,)`, from their samples in rising order."""
        samples = torch.arange(len(self.sizes) + 1, device=owners.device)
        return torch.searchsorted(owners, samples).diff()


class Places(NamedTuple):
    """Some of all pixels: the place of each and its sample, `(n,)`."""

    pixel: Tensor
    owner: Tensor


class Part(NamedTuple):
    """Samples that a fit is made to.

    Which they are `(S,)` bool, the scatter of their pixels about the mean of each sample `(C, C)`, and the pixels of
    disease and of healthy samples.
    """

    samples: Tensor
    within: Tensor
    mixed: Places
    clean: Places


def choose_spectra(
    samples: Iterable[tuple[Tensor, Tensor, int]], neighbourhood: int, each: int, count: int, seed: int
) -> Spectra:
    """The mean spectra of the neighbourhoods of some tissue pixels of each sample.

    Args:
        samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label, one at a time.
        neighbourhood: Side in pixels, odd.
        each: How many pixels of a sample, at most.
        count: Number of samples.
        seed: Of the choice.
    """
    generator, pixels = torch.Generator().manual_seed(seed), torch.empty(0)
    sizes: list[int] = []
    labels: list[int] = []
    for image, tissue, label in samples:
        inside = tissue.flatten().nonzero()[:, 0]
        chosen = torch.randperm(len(inside), generator=generator)[:each].sort().values
        if not sizes:
            # One array for all, filled sample after sample: joining them would take the memory twice.
            pixels = image.new_empty(each * count, len(image), dtype=torch.float32)
        filled = sum(sizes)
        pixels[filled : filled + len(chosen)] = local_means(
            image, tissue, inside[chosen.to(inside.device)], neighbourhood
        )
        sizes.append(len(chosen))
        labels.append(label)
    pixels, lengths = pixels[: sum(sizes)], torch.tensor(sizes, device=pixels.device)
    means = torch.stack([of_sample.sum(0, dtype=torch.float64) for of_sample in torch.split(pixels, sizes)])
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=pixels.device), lengths)
    return Spectra(
        pixels, owner, lengths, torch.tensor(labels, device=pixels.device) > 0, means / lengths.clamp_min(1)[:, None]
    )


def parts_of(spectra: Spectra, seed: int) -> list[Part]:
    """All samples; and two halves that both hold both classes, if there are two samples of each class."""
    everything = torch.ones_like(spectra.disease)
    classes = [(spectra.disease == label).nonzero()[:, 0] for label in (False, True)]
    if min(map(len, classes)) < 2:
        return [part_of(spectra, everything, spectra.scatter(everything))]
    generator, half = torch.Generator().manual_seed(seed), torch.zeros_like(everything)
    for samples in classes:
        # Every other sample of a shuffled class.
        half[samples[torch.randperm(len(samples), generator=generator)[::2].to(samples.device)]] = True
    halves = [part_of(spectra, samples, spectra.scatter(samples)) for samples in (half, ~half)]
    return [part_of(spectra, everything, halves[0].within + halves[1].within), *halves]


def part_of(spectra: Spectra, samples: Tensor, within: Tensor) -> Part:
    """The part with these samples `(S,)` bool, whose scatter is known."""
    chosen = (samples & (spectra.disease == label) for label in (True, False))
    pixels = (of_class[spectra.owner].nonzero()[:, 0] for of_class in chosen)
    return Part(samples, within, *(Places(places, spectra.owner[places]) for places in pixels))


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


def sum_of_spectra(image: Tensor, chosen: Tensor) -> Tensor:
    """Sum `(B, C)` of the spectra of chosen pixels, from `(B, C, H, W)` and bool `(B, 1, H, W)`."""
    return torch.einsum("bchw,bhw->bc", image, chosen[:, 0].to(image.dtype))


def local_mean(image: Tensor, tissue: Tensor, side: int) -> Tensor:
    """Mean over the tissue pixels of the `side` x `side` square around each pixel.

    `(B, C, H, W)` to the same shape, zero off tissue.
    """
    # The pooled mask divides the pooled values, so pixels outside the tissue and the image do not count.
    inside = tissue.to(image.dtype)
    total, share = (avg_pool2d(x, side, stride=1, padding=side // 2) for x in (image * inside, inside))
    return torch.where(tissue, total / share.clamp_min(1e-6), 0.0)


def local_means(image: Tensor, tissue: Tensor, places: Tensor, side: int) -> Tensor:
    """`local_mean` at some places alone: `(n, C)`.

    Args:
        image: `(C, H, W)`.
        tissue: `(1, H, W)` bool.
        places: Row * W + column of each, `(n,)`, on tissue.
        side: In pixels, odd.
    """
    _, height, width = image.shape
    step = torch.arange(side, device=places.device) - side // 2
    rows, columns = (places // width)[:, None, None] + step[:, None], (places % width)[:, None, None] + step
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    around = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1)
    inside = inside.flatten(1) & tissue.flatten()[around]
    counts = inside.sum(1)
    spectra = image.flatten(1).T.contiguous()  # no copy in channels_last, as preprocessing leaves it
    return embedding_bag(around[inside], spectra, starts(counts), mode="mean")


def starts(counts: Tensor) -> Tensor:
    """Where each of several groups begins, one after the other, from their sizes `(n,)`."""
    return counts.cumsum(0) - counts


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


def held_out_auc(spectra: Spectra, halves: Sequence[Marking]) -> float:
    """How well the marked share of one half of the samples predicts their labels, fitted to the other half.

    Mean area under the ROC of both ways round; NaN without halves.
    """
    # By the share, because scores hardly tell the modes apart (docs/research/lab-log.md, 2026-11-23).
    aucs = []
    for half in halves:
        held_out, shares = ~half.part.samples, shares_of(half.scores.double(), spectra.sizes, half.fit)
        aucs.append(auc(*(shares[held_out & (spectra.disease == label)] for label in (False, True))))
    return sum(aucs) / len(aucs) if aucs else math.nan


def shares_of(scores: Tensor, sizes: Tensor, fit: Fit) -> Tensor:
    """The share of each sample's pixels that would be marked, `(S,)`, from scores `(N,)` and their numbers `(S,)`."""
    padded = pad_sequence(list(torch.split(scores, sizes.tolist())), batch_first=True)
    there = torch.arange(padded.shape[1], device=sizes.device) < sizes[:, None]
    return mark(padded[:, None, None], there[:, None, None], fit).sum((1, 2, 3)).double() / sizes.clamp_min(1)


def auc(healthy: Tensor, disease: Tensor) -> float:
    """Area under the ROC: how often a disease value is the higher one of a pair, ties counting half."""
    return float((0.5 + 0.5 * (disease[:, None] - healthy).sign()).mean())
