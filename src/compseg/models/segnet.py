"""SegNet: its decoder puts each maximum back at the position where the encoder found it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from compseg.models.blocks import Prior, conv_units, initialise, make_dropout, require_at_least, start_at
from compseg.models.geometry import CONV, POOL, UNPOOL, crop_to, pad_to_multiple, receptive_field

# VGG-16, level by level: number of convolutions, and channels as multiples of the first level's.
CONVS = (2, 2, 3, 3, 3)
FACTORS = (1, 2, 4, 8, 8)


class SegNet(nn.Module):
    """SegNet (Badrinarayanan et al. 2017, arXiv:1511.00561), for any number of channels.

    The encoder is the 13 convolutions of VGG-16 with five 2x2 max-poolings; the decoder mirrors it, unpools with the
    stored positions of the maxima, and its last convolution gives the maps. ReLU and batch norm as in that paper.

    Args:
        in_channels: Channels C of the image.
        out_channels: Maps M.
        width: Channels of the first level; the levels have 1, 2, 4, 8 and 8 times that.
        activation: One of `blocks.ACTIVATIONS`.
        norm: One of `blocks.NORMS`, after each convolution but the last.
        dropout: Probability of dropping a channel at the end of the encoder.
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
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        prior: Prior = 0.5,
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, out_channels=out_channels, width=width)
        widths = [width * factor for factor in FACTORS]
        levels = list(zip([in_channels, *widths[:-1]], widths, CONVS, strict=True))
        self.encoder = nn.ModuleList(
            conv_units([above] + [w] * convs, 3, norm, activation) for above, w, convs in levels
        )
        self.dropout = make_dropout(dropout)
        self.decoder = nn.ModuleList(
            conv_units([w] * convs + [above], 3, norm, activation) for above, w, convs in levels[1:]
        )
        # The second convolution of the finest level is the output layer itself.
        self.decoder.insert(0, conv_units([width, width], 3, norm, activation))
        self.output = nn.Conv2d(width, out_channels, 3, padding=1)
        initialise(self)
        # After the initialisation of all layers, which would undo it.
        start_at(self.output, prior)

    @property
    def layers(self) -> list[str]:
        """The longest path from image to map, in the words of `models.geometry`."""
        down = [layer for convs in CONVS for layer in [CONV] * convs + [POOL]]
        return down + [layer for convs in reversed(CONVS) for layer in [UNPOOL] + [CONV] * convs]

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that one output pixel sees."""
        return receptive_field(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`, any H and W."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, 2 ** len(CONVS))
        # Only positions are kept on the way down, not features: that is SegNet's saving in memory.
        positions: list[Tensor] = []
        for units in self.encoder:
            x, position = functional.max_pool2d(units(x), 2, return_indices=True)
            positions.append(position)
        x = self.dropout(x)
        for units, position in zip(reversed(self.decoder), reversed(positions), strict=True):
            x = units(functional.max_unpool2d(x, position, [2, 2]))
        logits: Tensor = self.output(x)
        return crop_to(logits, height, width)
