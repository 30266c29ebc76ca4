"""Augmentation on the device, sampled for each image from `(seed, epoch, sample)`.

It is the same for any number of ranks and workers, and after a resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor

from compseg.batches.cache import empty, sent
from compseg.batches.dataset import Batch
from compseg.errors import CompsegError

Ways = Literal["all", "flips", "left_right", "up_down", "none"]


class Augmentation(Protocol):
    """Changes one sample's pictures, each `(C, H, W)`: `image`, `tissue` and perhaps `truth`.

    Attributes:
        is_geometric: Whether it moves pixels and leaves their values: then it may as well come after preprocessing.
    """

    is_geometric: bool

    def __call__(self, pictures: dict[str, Tensor], generator: np.random.Generator) -> dict[str, Tensor]:
        """The changed pictures; all chance comes from the generator."""
        ...


class FlipRotate(NamedTuple):
    """A flip, then rotations by 90 degrees: eight ways to lay a square picture down, four for other rectangles."""

    flip: bool
    quarter: int

    def __call__(self, picture: Tensor) -> Tensor:
        """Flip and rotate `(..., H, W)`."""
        picture = picture.flip(-1) if self.flip else picture
        return picture.rot90(self.quarter, dims=(-2, -1)) if self.quarter else picture

    def back(self, picture: Tensor) -> Tensor:
        """Undo it."""
        # Flips and rotations do not commute, so they are undone the other way round.
        picture = picture.rot90(-self.quarter, dims=(-2, -1)) if self.quarter else picture
        return picture.flip(-1) if self.flip else picture


class RandomFlipRotate90:
    """Flips and rotations by 90 degrees: the eight ways to lay a square spot on a slide, four for other rectangles.

    Args:
        ways: `all` of them; `flips` of both axes, without rotations by 90 degrees; `left_right` or `up_down`, one flip;
            `none`.

    Raises:
        CompsegError: Any other word.
    """

    is_geometric = True

    def __init__(self, ways: Ways = "all") -> None:
        if ways not in get_args(Ways):
            raise CompsegError(f"augmentation: ways={ways}: expected one of {', '.join(get_args(Ways))}")
        self.ways = ways

    def __call__(self, pictures: dict[str, Tensor], generator: np.random.Generator) -> dict[str, Tensor]:
        """Flip and rotate image, tissue and truth alike."""
        flip, quarter = bool(generator.integers(2)), int(generator.integers(4))
        height, width = pictures["image"].shape[-2:]
        # A rectangle rotated by 90 degrees would not fit the batch.
        moved = self._moved(flip, quarter if height == width else quarter // 2 * 2)
        return {name: moved(picture) for name, picture in pictures.items()}

    def _moved(self, flip: bool, quarter: int) -> FlipRotate:
        """One of the ways, by chance; up and down are flipped by a half rotation of what is flipped sideways."""
        half = quarter // 2 * 2
        return {
            "all": FlipRotate(flip, quarter),
            "flips": FlipRotate(flip, half),
            "left_right": FlipRotate(flip, 0),
            "up_down": FlipRotate(flip, 2 * flip),
            "none": FlipRotate(False, 0),
        }[self.ways]


class RandomHorizontalFlip:
    """Left and right exchanged, or not: for pictures that have an up, such as ultrasound."""

    is_geometric = True

    def __call__(self, pictures: dict[str, Tensor], generator: np.random.Generator) -> dict[str, Tensor]:
        """Flip image, tissue and truth alike."""
        moved = FlipRotate(bool(generator.integers(2)), 0)
        return {name: moved(picture) for name, picture in pictures.items()}


class SpectralJitter:
    """Adds a smooth random baseline and multiplies by a random gain, the same for all spectra of a sample.

    That is what another array, slide or day does to all its spectra.

    Args:
        baseline: Size of the baseline, as a fraction of the sample's standard deviation over tissue and channels.
        gain: Relative standard deviation of the factor on all channels.
        degree: Degree of the Legendre polynomials that the baseline is sampled from; 3 bends once each way.
    """

    is_geometric = False

    def __init__(self, baseline: float = 0.1, gain: float = 0.1, degree: int = 3) -> None:
        self.baseline, self.gain, self.degree = baseline, gain, degree

    def __call__(self, pictures: dict[str, Tensor], generator: np.random.Generator) -> dict[str, Tensor]:
        """Change the image; masks stay."""
        # float16, in which cohorts are stored, would round what is added.
        image = pictures["image"].float()
        curve = np.polynomial.legendre.legval(np.linspace(-1, 1, len(image)), generator.normal(size=self.degree + 1))
        scale = _deviation(image, pictures["tissue"])
        baseline = sent(curve.astype(np.float32), image.device)[:, None, None] * (self.baseline * scale)
        # Log-normal, so that the gain is positive however large its deviation.
        factor = float(np.exp(self.gain * generator.normal()))
        return {**pictures, "image": image * factor + baseline}


def _deviation(image: Tensor, tissue: Tensor) -> Tensor:
    """Standard deviation over tissue and channels of `(C, H, W)`; indexing by the mask would wait for the device."""
    inside = torch.where(tissue, image, 0.0)
    count = tissue.sum() * len(image)
    # In two passes: in float32 the difference of two large sums has lost the digits of a small deviation.
    centred = torch.where(tissue, image - inside.sum() / count, 0.0)
    return (centred.square().sum() / (count - 1)).sqrt()


def augment(batch: Batch, augmentations: Mapping[str, Augmentation], seed: int, epoch: int) -> Batch:
    """The batch with every sample augmented by all of `augmentations`, in order."""
    if not augmentations:
        return batch
    pictures = {"image": batch["image"], "tissue": batch["tissue"]}
    if "truth" in batch:
        pictures["truth"] = batch["truth"]
    samples = []
    for position, index in enumerate(batch["index"]):
        sample = {name: stack[position] for name, stack in pictures.items()}
        # One for each sample: which samples share a batch depends on its size and on the number of ranks.
        # numpy's, because torch's generators are seeded with the rank too (`SeedEachStep`).
        generator = np.random.default_rng((seed, epoch, index))
        for augmentation in augmentations.values():
            sample = augmentation(sample, generator)
        samples.append(sample)
    augmented = {name: _stacked([sample[name] for sample in samples], stack) for name, stack in pictures.items()}
    return cast("Batch", {**batch, **augmented})


def _stacked(pictures: Sequence[Tensor], like: Tensor) -> Tensor:
    """Pictures as a channels_last batch.

    `torch.stack` would take the layout of the first picture, which a rotation changes; all that follows reads
    channels_last.
    """
    B, C, H, W = like.shape
    batch = empty((B, H, W, C), pictures[0].dtype, like.device).permute(0, 3, 1, 2)
    for slot, picture in zip(batch, pictures, strict=True):
        slot.copy_(picture)
    return batch
