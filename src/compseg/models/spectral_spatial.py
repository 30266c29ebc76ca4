"""A small network that reads each pixel's spectrum first and its near neighbourhood second."""

from __future__ import annotations

from torch import Tensor, nn

from compseg.models.blocks import conv_units, initialise, make_dropout, require_at_least, start_at
from compseg.models.receptive_field import CONV, receptive_field


class SpectralSpatial(nn.Module):
    """Spectral 1x1 convolutions, then a few spatial 3x3 convolutions, then a 1x1 convolution to the maps.

    Sample labels let a deep network pass by knowing the training samples again; one that sees a few pixels has little
    to know them by but the spectra that recur in disease. No size is halved, so every image size is taken as it is.

    Args:
        in_channels: Channels C of the image.
        out_channels: Maps M.
        width: Channels of every layer.
        spectral_depth: Number of 1x1 convolutions, at least 1.
        spatial_depth: Number of 3x3 convolutions; 0 makes a classifier of single spectra.
        activation: One of `blocks.ACTIVATIONS`.
        norm: One of `blocks.NORMS`, after each convolution. `group` and `instance` also tell each pixel the image's
            mean and variance, and `pixel` does not: there a map does not depend on how an image is cut into tiles.
        dropout: Probability of dropping a channel before the output.
        prior: Activation that the untrained network gives, about, everywhere.

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
        prior: float = 0.5,
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
        start_at(self.output, prior)

    @property
    def layers(self) -> list[str]:
        """The longest path from image to map, in the words of `models.receptive`."""
        return [CONV] * len(self.spatial)

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that one output pixel sees: 1 + 2 x `spatial_depth`."""
        return receptive_field(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`, any H and W."""
        logits: Tensor = self.output(self.dropout(self.spatial(self.spectral(x))))
        return logits
