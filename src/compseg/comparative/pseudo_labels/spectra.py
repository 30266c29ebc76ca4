"""What pseudo-labels are fitted to: mean spectra of small neighbourhoods of all samples, and their sums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, embedding_bag

BLOCK = 1024  # pixels of a product: they stay in the cache


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


def parts_of(spectra: Spectra, seed: int, halvings: int = 1) -> list[Part]:
    """All samples; and, if there are two of each class, pairs of halves that both hold both classes.

    Args:
        spectra: Of all samples.
        seed: Of the halves.
        halvings: Number of pairs; the first is the same for any number.
    """
    everything = torch.ones_like(spectra.disease)
    classes = [(spectra.disease == label).nonzero()[:, 0] for label in (False, True)]
    if min(map(len, classes)) < 2:
        return [part_of(spectra, everything, spectra.scatter(everything))]
    generator = torch.Generator().manual_seed(seed)
    chosen = [half_of(classes, generator, everything) for _ in range(halvings)]
    halves = [part_of(spectra, samples, spectra.scatter(samples)) for half in chosen for samples in (half, ~half)]
    return [part_of(spectra, everything, halves[0].within + halves[1].within), *halves]


def half_of(classes: list[Tensor], generator: torch.Generator, everything: Tensor) -> Tensor:
    """Half of the samples of each class, by chance: bool of the shape `(S,)` of `everything`."""
    half = torch.zeros_like(everything)
    for samples in classes:
        # Every other sample of a shuffled class.
        half[samples[torch.randperm(len(samples), generator=generator)[::2].to(samples.device)]] = True
    return half


def part_of(spectra: Spectra, samples: Tensor, within: Tensor) -> Part:
    """The part with these samples `(S,)` bool, whose scatter is known."""
    chosen = (samples & (spectra.disease == label) for label in (True, False))
    pixels = (of_class[spectra.owner].nonzero()[:, 0] for of_class in chosen)
    return Part(samples, within, *(Places(places, spectra.owner[places]) for places in pixels))


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
