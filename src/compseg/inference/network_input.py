"""What the network reads of raw samples: preprocessed and, where a pseudo-labeller says so, contrasted.

On a processor both are one pass over the tissue pixels, in which no array but the result is larger than what fits into
a core's cache. Training and the extracted segmenter share it. Needs torch alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compseg.comparative import FisherPseudoLabels
from compseg.preprocessing import Preprocess
from compseg.preprocessing.preprocess import by_pixels, copied_strips, put, spectra_of


@torch.no_grad()
def network_input(
    preprocess: Preprocess,
    labeller: FisherPseudoLabels | None,
    image: Tensor,
    tissue: Tensor,
    background: Tensor | None = None,
) -> Tensor:
    """What the segmenter reads.

    Args:
        preprocess: Of raw values.
        labeller: Whose contrast is read; None: samples as they are.
        image: `(B, C, H, W)`, raw values.
        tissue: `(B, 1, H, W)` bool.
        background: Spectrum `(B, C)` to contrast with; None: that of each image, which is then a whole sample.

    Returns:
        `(B, C, H, W)` float32, zero off tissue.
    """
    if by_pixels(image):
        if background is None and labeller is not None and labeller.own:
            return _contrasted_samples(preprocess, labeller, image, tissue)
        background = backgrounds_of(preprocess, labeller, image, tissue) if background is None else background
        return input_by_pixels(preprocess, image, tissue, background)[0]
    given: Tensor = preprocess(image, tissue)
    if labeller is None:
        return given
    if background is None:
        return labeller.contrast(given, tissue)
    return labeller.subtract_background(given, tissue, background)


@torch.no_grad()
def backgrounds_of(
    preprocess: Preprocess, labeller: FisherPseudoLabels | None, image: Tensor, tissue: Tensor
) -> Tensor:
    """The background spectra `(B, C)` of whole samples in channels_last host memory; see `network_input`."""
    if labeller is None or not labeller.own:
        return torch.zeros(len(image), len(preprocess.mean))
    samples = zip(image[:, None], tissue[:, None], strict=True)
    return torch.cat([_background_of(preprocess, labeller, *sample) for sample in samples])


class SumsByScore:
    """Sums of spectra by their score, in float16: which are below a level may be asked when all have been read.

    The few whose score rounds to that of the level count by their share: of 10^5 pixels that moves the mean by some
    10^-5 of a standard deviation.

    Args:
        channels: Number of channels C.
        device: Where spectra come from.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        # On a GPU rows are added in no fixed order, which float64 does not show.
        dtype = torch.float64 if device.type == "cuda" else torch.float32
        # Memory is taken as rows are filled. The last row is of spectra that do not count.
        self.sums = torch.zeros(2**16 + 1, channels, dtype=dtype, device=device)

    def add(self, spectra: Tensor, scores: Tensor, counted: Tensor) -> None:
        """Add spectra `(n, C)` with scores `(n,)`, if they are counted, `(n,)` bool."""
        # To pick out those that count would copy them, which takes longer than to add all.
        rows = torch.where(counted, rows_of(scores), len(self.sums) - 1)
        self.sums.index_add_(0, rows, spectra.to(self.sums.dtype))

    def total(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """The sum `(C,)` of chosen spectra, from the scores of all and which are chosen, `(N,)` bool."""
        rows = rows_of(scores)
        every, some = (torch.bincount(each, minlength=len(self.sums)) for each in (rows, rows[chosen]))
        filled = every.nonzero()[:, 0]
        return (some[filled] / every[filled]).to(self.sums.dtype) @ self.sums[filled]


def rows_of(scores: Tensor) -> Tensor:
    """Scores rounded to float16, as one of 2^16 numbers."""
    return scores.half().view(torch.int16).long() + 2**15


def score_tile(
    preprocess: Preprocess,
    labeller: FisherPseudoLabels,
    image: Tensor,
    tissue: Tensor,
    core: Tensor,
    sums: SumsByScore,
) -> Tensor:
    """The scores `(1, 1, h, w)` of a tile, and the spectra of its core added to the sums.

    Args:
        preprocess: Of raw values.
        labeller: Which scores.
        image: `(1, C, h, w)`, raw.
        tissue: `(1, 1, h, w)` bool.
        core: Tissue pixels that are no margin, of that shape.
        sums: Of all tiles.
    """
    # Prepared once for both: a spectrum's place among the sums depends on its neighbours' too.
    given = preprocess(image, tissue)
    score = labeller.score(given, tissue)
    sums.add(given[0].movedim(0, -1).flatten(0, 1), score.flatten(), core.flatten())
    return score


def _contrasted_samples(preprocess: Preprocess, labeller: FisherPseudoLabels, image: Tensor, tissue: Tensor) -> Tensor:
    """The input of whole samples, each contrasted with its own background, by pixels; see `network_input`."""
    result = preprocess.empty_input(tissue)
    for sample in zip(image[:, None], tissue[:, None], result[:, None], strict=True):
        _contrast_sample(preprocess, labeller, *sample)
    return result


def _contrast_sample(
    preprocess: Preprocess, labeller: FisherPseudoLabels, image: Tensor, tissue: Tensor, result: Tensor
) -> None:
    """Fill in the input of one sample `(1, C, H, W)`; its spectra are corrected once, and wait there."""
    background = _background_of(preprocess, labeller, image, tissue, result)
    places, standardise_ = tissue.flatten().nonzero()[:, 0], preprocess.standardiser(background[0])
    for strip, spectra in copied_strips(result, places):
        put(spectra_of(result), places[strip], standardise_(spectra))


def _background_of(
    preprocess: Preprocess,
    labeller: FisherPseudoLabels,
    image: Tensor,
    tissue: Tensor,
    corrected: Tensor | None = None,
) -> Tensor:
    """That of one sample: `(1, C)`; its corrected spectra are kept in `corrected`, `(1, C, H, W)`, if that is given."""
    score, total = _score_of(preprocess, labeller, image, tissue, corrected)
    marked = labeller.marked(score, tissue)
    # Of a sample's pixels the marked ones are fewer, as a rule.
    for _, spectra in preprocess.strips(image, marked.flatten().nonzero()[:, 0]):
        total -= spectra.sum(0)
    return labeller.background(total.float()[None], (tissue & ~marked).sum().view(1, 1))


def _score_of(
    preprocess: Preprocess, labeller: FisherPseudoLabels, image: Tensor, tissue: Tensor, corrected: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores `(1, 1, H, W)` of one sample, and the sum `(C,)` of its spectra; see `_background_of`."""
    places, filtered = tissue.flatten().nonzero()[:, 0], torch.zeros(tissue.numel())
    total, standardise_ = torch.zeros(len(preprocess.mean), dtype=torch.float64), preprocess.standardiser()
    for strip, spectra in preprocess.corrected_strips(image, places):
        if corrected is not None:
            put(spectra_of(corrected), places[strip], spectra)
        standardised = standardise_(spectra)
        filtered[places[strip]] = standardised @ labeller.filter
        total += standardised.sum(0)
    return labeller.averaged(filtered.view(tissue.shape), tissue), total


@torch.no_grad()
def input_by_pixels(
    preprocess: Preprocess,
    image: Tensor,
    tissue: Tensor,
    background: Tensor,
    labeller: FisherPseudoLabels | None = None,
    moved: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The segmenter's input, each tissue pixel written straight to where augmentation moves it.

    Args:
        preprocess: Of raw values.
        image: `(B, C, H, W)` raw, in channels_last host memory.
        tissue: Of the result, `(B, 1, H, W)` bool.
        background: Spectrum that is subtracted from each sample, `(B, C)`.
        labeller: Whose scores are wanted; None: they stay zero.
        moved: Number among all pixels of `image` of the one that each pixel of the result shows, `(B, 1, H, W)`; None:
            its own.

    Returns:
        Input `(B, C, H, W)` float32 in channels_last memory, zero off tissue; and the labeller's score of each pixel
        `(B, 1, H, W)`.
    """
    result, filtered, size = preprocess.empty_input(tissue), torch.zeros(tissue.numel()), tissue[0].numel()
    for sample, (inside, subtracted) in enumerate(zip(tissue, background, strict=True)):
        places = inside.flatten().nonzero()[:, 0] + sample * size
        sources = places if moved is None else moved.flatten()[places]
        for strip, spectra in preprocess.strips(image, sources, subtracted):
            put(spectra_of(result), places[strip], spectra)
            if labeller is not None:
                filtered[places[strip]] = spectra @ labeller.filter + subtracted @ labeller.filter
    score = filtered.view(tissue.shape)
    return result, score if labeller is None else labeller.averaged(score, tissue)
