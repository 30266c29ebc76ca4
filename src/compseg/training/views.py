"""Further views of a batch, for objectives that compare maps with one another and not with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compseg.batches import FlipRotate
from compseg.comparative import MeanTeacher, Objective

WAYS = [FlipRotate(flip, quarter) for flip in (False, True) for quarter in range(4)][1:]  # all but as it lies
FLIPS = [way for way in WAYS if way.quarter % 2 == 0]


class Views(nn.Module):
    """Gives an objective what it `reads` of a `HeadOutput` beyond the head's own.

    Args:
        segmenter: Copied where the objective asks for its average.
        objective: Which views to make; one that asks for none costs nothing.
        seed: Of the rotations.

    Attributes:
        ema: The segmenter with the fading average of its past weights; None if the objective does not read it.
    """

    def __init__(self, segmenter: nn.Module, objective: Objective, seed: int = 0) -> None:
        super().__init__()
        self.reads, self.seed = objective.reads, seed
        self.ema = averaged(segmenter, objective)

    def forward(self, segmenter: nn.Module, image: Tensor, index: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Make the views.

        Args:
            segmenter: The one that is trained.
            image: `(B, C, H, W)`, its input.
            index: Numbers of the samples; with the epoch and the seed they decide how each is rotated.
            epoch: Number of the epoch.

        Returns:
            Fields of `HeadOutput` by name.
        """

        def rotated(network: nn.Module, ways: Sequence[FlipRotate]) -> Tensor:
            return activation_of_rotated(network, image, sampled_rotations(image, index, self.seed, epoch, ways))

        views: dict[str, Callable[[], Tensor]] = {
            "image": lambda: image,
            "rotated": lambda: rotated(segmenter, WAYS),
            "flipped": lambda: rotated(segmenter, FLIPS),
            "ema": torch.no_grad()(lambda: rotated(self.ema or segmenter, WAYS)),
        }
        return {name: make() for name, make in views.items() if name in self.reads}

    def follow(self, segmenter: nn.Module) -> None:
        """Move the average towards the segmenter; after each step of the optimizer."""
        if self.ema is not None:
            self.ema.update_parameters(segmenter)


def averaged(segmenter: nn.Module, objective: Objective) -> AveragedModel | None:
    """A copy that will follow the segmenter slowly, if the objective compares the two."""
    rates = [part.mu for part in objective.modules() if isinstance(part, MeanTeacher)]
    if not rates:
        return None
    follow = get_ema_multi_avg_fn(rates[0])  # type: ignore[no-untyped-call]
    ema = AveragedModel(segmenter, multi_avg_fn=follow)
    ema.requires_grad_(False)  # neither the optimizer nor DDP has any business with it
    return ema


def sampled_rotations(
    image: Tensor, index: Sequence[int], seed: int, epoch: int, ways: Sequence[FlipRotate] = WAYS
) -> list[FlipRotate]:
    """How each sample of `(B, C, H, W)` is flipped or rotated, by `(seed, epoch, index)`; never the identity."""
    # A rectangle rotated by 90 degrees would not fit the batch.
    allowed = ways if image.shape[-2] == image.shape[-1] else FLIPS
    return [allowed[int(np.random.default_rng((seed, epoch, i)).integers(len(allowed)))] for i in index]


def activation_of_rotated(segmenter: nn.Module, image: Tensor, rotations: Sequence[FlipRotate]) -> Tensor:
    """The disease map `(B, 1, H, W)` of the rotated images `(B, C, H, W)`, rotated back."""
    logits = segmenter(torch.stack([rotate(picture) for rotate, picture in zip(rotations, image, strict=True)]))[:, :1]
    seen = torch.stack([rotate.back(picture) for rotate, picture in zip(rotations, logits, strict=True)])
    # Half precision is for the network alone.
    return torch.sigmoid(seen.float())
