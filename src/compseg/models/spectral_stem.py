"""Fewer channels before the network: a learned projection of each spectrum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compseg.models.blocks import require_at_least

SMALLEST = 1e-6  # variance, as a share of the largest, below which a component is rounding


class SpectralStem(nn.Module):
    """A 1x1 convolution from C channels to a few components, and a network on those.

    Neighbouring channels of a spectrum say nearly the same. The first 3x3 convolution of a U-Net costs 9 C products a
    pixel and feature, which at 450 channels is most of a narrow network's work; behind a stem it costs 9 components.

    `fit` starts the stem at the principal components of the training spectra, each at unit variance (Jolliffe,
    Principal Component Analysis, 2002, section 2.1); training goes on from there.

    Args:
        in_channels: Channels C of the image.
        net: From `(B, components, H, W)` to logits `(B, M, H, W)`.
        components: Channels that the network is given.
        pixels: Tissue pixels of all samples together that are looked at for fitting.

    Attributes:
        share: Of the training spectra's variance that the components hold; NaN before `fit`.

    Raises:
        CompsegError: A number is below 1.
    """

    def __init__(self, in_channels: int, net: nn.Module, components: int = 16, pixels: int = 100_000) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, components=components, pixels=pixels)
        self.stem = nn.Conv2d(in_channels, components, 1)
        self.net = net
        self.pixels, self.share = pixels, float("nan")

    @property
    def layers(self) -> Sequence[str] | None:
        """The longest path from image to map, in the words of `models.receptive`; None if the network has none."""
        return getattr(self.net, "layers", None)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`."""
        logits: Tensor = self.net(self.stem(x))
        return logits

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int = 0) -> None:
        """Start the stem at the principal components of the training spectra; labels are not looked at.

        Where there are fewer components than asked for, the others stay as they were drawn.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time.
            count: Number of samples, so that each may give its part of `pixels`.
            seed: Of the choice of pixels.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = []
        for image, tissue, _ in samples:
            spectra = image[:, tissue[0]].T
            chosen.append(spectra[torch.randperm(len(spectra), generator=generator)[: max(1, self.pixels // count)]])
        self._start_at(*principal_components(torch.cat(chosen).double()))

    def _start_at(self, mean: Tensor, variances: Tensor, directions: Tensor) -> None:
        assert self.stem.bias is not None
        kept = int((variances[: self.stem.out_channels] > SMALLEST * variances[0]).sum())
        weights = directions[:kept] / variances[:kept, None].sqrt()
        self.stem.weight[:kept, :, 0, 0] = weights.to(self.stem.weight)
        self.stem.bias[:kept] = -(weights @ mean).to(self.stem.bias)
        self.share = float(variances[:kept].sum() / variances.sum())

    def __str__(self) -> str:
        """What was found, in a line."""
        return f"a stem of {self.stem.out_channels} components, {self.share:.1%} of the spectra's variance"


def principal_components(spectra: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean `(C,)`, variances `(C,)` in descending order and directions `(C, C)`, a row each, of spectra `(n, C)`.

    A direction's largest part is positive, so that the same spectra give the same signs everywhere.
    """
    mean = spectra.mean(0)
    centred = spectra - mean
    variances, columns = torch.linalg.eigh(centred.T @ centred / len(spectra))
    directions = columns.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return mean, variances.flip(0).clamp_min(0), directions * largest.sign()
