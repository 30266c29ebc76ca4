"""What the network reads of raw samples: preprocessed and, where a pseudo-labeller says so, contrasted.

On a processor both are one pass over the tissue pixels, in which no array but the result is larger than what fits into
a core's cache. Training and the extracted segmenter share it. Needs torch alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compseg.comparative import FisherPseudoLabels
from compseg.preprocessing import Preprocess
from compseg.preprocessing.preprocess import by_pixels, spectra_of


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
        return torch.zeros(image.shape[:2])
    samples = zip(image[:, None], tissue[:, None], strict=True)
    return torch.cat([_background_of(preprocess, labeller, *sample) for sample in samples])


def _background_of(preprocess: Preprocess, labeller: FisherPseudoLabels, image: Tensor, tissue: Tensor) -> Tensor:
    """That of one sample: `(1, C)`."""
    places, filtered = tissue.flatten().nonzero()[:, 0], torch.zeros(tissue.numel())
    total = torch.zeros(1, image.shape[1], dtype=torch.float64)
    for strip, spectra in preprocess.strips(image, places):
        filtered[places[strip]] = spectra @ labeller.filter
        total += spectra.sum(0)
    marked = labeller.marked(labeller.averaged(filtered.view(tissue.shape), tissue), tissue)
    # Of a sample's pixels the marked ones are fewer, as a rule.
    for _, spectra in preprocess.strips(image, marked.flatten().nonzero()[:, 0]):
        total -= spectra.sum(0)
    return labeller.background(total.float(), (tissue & ~marked).sum().view(1, 1))


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
            spectra_of(result).index_copy_(0, places[strip], spectra)
            if labeller is not None:
                filtered[places[strip]] = spectra @ labeller.filter + subtracted @ labeller.filter
    score = filtered.view(tissue.shape)
    return result, score if labeller is None else labeller.averaged(score, tissue)
