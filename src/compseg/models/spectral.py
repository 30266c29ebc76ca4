"""Networks that start from the spectrum of each pixel: a small one, and a stem that any other can have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compseg.models.blocks import Prior, conv_units, initialise, make_dropout, require_at_least, start_at
from compseg.models.geometry import CONV, receptive_field

SMALLEST = 1e-6  # share of the largest variance, below which a component is rounding error of float64 sums


class SpectralSpatial(nn.Module):
    """Spectral 1x1 convolutions, then a few spatial 3x3 convolutions, then a 1x1 convolution to the maps.

    Sample labels let a deep network succeed by memorising the training samples. A network that sees a few pixels has
    little to recognise them by but the spectra that recur in disease. It does not downsample, so it takes any size.

    Args:
        in_channels: Channels C of the image.
        out_channels: Maps M.
        width: Channels of every layer.
        spectral_depth: Number of 1x1 convolutions, at least 1.
        spatial_depth: Number of 3x3 convolutions; 0 makes a classifier of single spectra.
        activation: One of `blocks.ACTIVATIONS`.
        norm: One of `blocks.NORMS`, after each convolution. `group` and `instance` also tell each pixel the image's
            mean and variance; `pixel` does not, so that a map does not depend on how an image is cut into tiles.
        dropout: Probability of dropping a channel before the output.
        prior: Approximate activation of the untrained network, everywhere; `auto`: 0.5, until training moves it.

    Raises:
        CompsegError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        *,
        width: int = 64,
        spectral_depth: int = 2,
        spatial_depth: int = 2,
        activation: str = "relu",
        norm: str = "group",
        dropout: float = 0.0,
        prior: Prior = 0.5,
    ) -> None:
        super().__init__()
        require_at_least(
            1, in_channels=in_channels, out_channels=out_channels, width=width, spectral_depth=spectral_depth
        )
        require_at_least(0, spatial_depth=spatial_depth)
        self.spectral = conv_units([in_channels] + [width] * spectral_depth, 1, norm, activation)
        self.spatial = conv_units([width] * (spatial_depth + 1), 3, norm, activation)
        self.dropout = make_dropout(dropout)
        self.output = nn.Conv2d(width, out_channels, 1)
        initialise(self)
        # After the initialisation of all layers, which would undo it.
        start_at(self.output, prior)

    @property
    def layers(self) -> list[str]:
        """The longest path from image to map, in the words of `models.geometry`."""
        return [CONV] * len(self.spatial)

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that one output pixel sees: 1 + 2 x `spatial_depth`."""
        return receptive_field(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`."""
        logits: Tensor = self.output(self.dropout(self.spatial(self.spectral(x))))
        return logits


class SpectralStem(nn.Module):
    """A 1x1 convolution from C channels to a few components, and a network on those.

    Neighbouring channels of a spectrum say nearly the same. The first 3x3 convolution of a U-Net costs 9 C products a
    pixel and feature, which at 450 channels is most of a narrow network's work; behind a stem it costs 9 components.

    `fit` sets the stem to the principal components of the training spectra, each at unit variance (Jolliffe,
    Principal Component Analysis, 2002, section 2.1); training continues from there.

    Args:
        in_channels: Channels C of the image.
        net: From `(B, components, H, W)` to logits `(B, M, H, W)`.
        components: Channels that the network is given.
        pixels: Number of tissue pixels, of all samples together, to fit on.

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
        """The longest path from image to map, in the words of `models.geometry`; None if the network has none."""
        return getattr(self.net, "layers", None)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`."""
        logits: Tensor = self.net(self.stem(x))
        return logits

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int = 0) -> None:
        """Set the stem to the principal components of the training spectra; labels are not used.

        Where the spectra have fewer components than asked for, the others keep their random weights.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time.
            count: Number of samples, so that each gives its part of `pixels`.
            seed: Of the choice of pixels.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = []
        for image, tissue, _ in samples:
            spectra = image[:, tissue[0]].T
            chosen.append(spectra[torch.randperm(len(spectra), generator=generator)[: max(1, self.pixels // count)]])
        # Neighbouring channels are nearly collinear: in float32 rounding would hide small variances.
        mean, variances, directions = principal_components(torch.cat(chosen).double())
        # A stem may ask for more components than the spectra have, whose variance is rounding error.
        assert self.stem.bias is not None
        kept = int((variances[: self.stem.out_channels] > SMALLEST * variances[0]).sum())
        # Unit variance: networks expect inputs of about that size.
        weights = directions[:kept] / variances[:kept, None].sqrt()
        self.stem.weight[:kept, :, 0, 0] = weights.to(self.stem.weight)
        self.stem.bias[:kept] = -(weights @ mean).to(self.stem.bias)
        self.share = float(variances[:kept].sum() / variances.sum())

    def __str__(self) -> str:
        """What `fit` found, in one line."""
        return f"a stem of {self.stem.out_channels} components, {self.share:.1%} of the spectra's variance"


def principal_components(spectra: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean `(C,)`, variances `(C,)` in descending order and directions `(C, C)`, one per row, of spectra `(n, C)`."""
    mean = spectra.mean(0)
    centred = spectra - mean
    variances, columns = torch.linalg.eigh(centred.T @ centred / len(spectra))
    directions = columns.T.flip(0)
    # The sign of an eigenvector is arbitrary: making its largest entry positive gives the same signs on every machine.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    # eigh sorts upwards, and rounding may take the smallest variances below 0.
    return mean, variances.flip(0).clamp_min(0), directions * largest.sign()
