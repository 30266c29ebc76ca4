"""The U-Net of the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.errors import CompsegError
from compseg.models.blocks import Prior, conv_units, initialise, make_dropout, require_at_least, start_at
from compseg.models.geometry import (
    BILINEAR,
    CONV,
    POOL,
    UNPOOL,
    crop_to,
    input_range,
    pad_to_multiple,
    receptive_field,
)
from compseg.samples import Window


class UNet(nn.Module):
    """The original U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for any number of channels.

    Two 3x3 convolutions per level, 2x2 max-pooling down, 2x2 transposed convolutions up, skips by concatenation, a 1x1
    convolution to the output. As in the CompSegNet paper (2020, sections 3.1 and 3.2), it keeps the image size ('same'
    zero padding) and has SoftPlus in place of ReLU; the defaults are that network.

    Args:
        in_channels: Channels C of the image.
        out_channels: Maps M.
        width: Channels of the first level; each level doubles them.
        depth: Number of halvings.
        activation: One of `blocks.ACTIVATIONS`.
        norm: One of `blocks.NORMS`, after each 3x3 convolution.
        dropout: Probability of dropping a channel at the end of the contracting path (its last two levels, as there).
        upsampling: `transposed` or `bilinear` (then a 1x1 convolution halves the channels).
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
        depth: int = 4,
        activation: str = "softplus",
        norm: str = "none",
        dropout: float = 0.0,
        upsampling: str = "transposed",
        prior: Prior = 0.5,
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, out_channels=out_channels, width=width, depth=depth)
        self.depth = depth
        self.upsampling = upsampling
        widths = [width * 2**level for level in range(depth + 1)]
        levels = zip([in_channels, *widths[:-1]], widths, strict=True)
        self.encoder = nn.ModuleList(conv_units([above, w, w], 3, norm, activation) for above, w in levels)
        self.pool = nn.MaxPool2d(2)
        self.dropout = make_dropout(dropout)
        self.up = nn.ModuleList(_upsampling(2 * w, w, upsampling) for w in widths[:-1])
        self.decoder = nn.ModuleList(conv_units([2 * w, w, w], 3, norm, activation) for w in widths[:-1])
        self.output = nn.Conv2d(width, out_channels, 1)
        initialise(self)
        # After the initialisation of all layers, which would undo it.
        start_at(self.output, prior)

    @property
    def layers(self) -> list[str]:
        """The longest path from image to map, in the words of `models.geometry`."""
        return [CONV, CONV, POOL] * self.depth + [CONV, CONV] + [self._up_layer, CONV, CONV] * self.depth

    @property
    def _up_layer(self) -> str:
        return BILINEAR if self.upsampling == "bilinear" else UNPOOL

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that one output pixel sees (204 for the paper's network)."""
        return receptive_field(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`, any H and W."""
        height, width = x.shape[-2:]
        x, skips = self._contract(pad_to_multiple(x, 2**self.depth))
        for level in reversed(range(self.depth)):
            x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], dim=1))
        logits: Tensor = self.output(x)
        return crop_to(logits, height, width)

    def forward_window(self, x: Tensor, core: Window) -> Tensor:
        """The logits of a part of an image, `self(x)[..., *core]`, for less work where the margin is wide.

        The expanding path is computed only where the core depends on it; the authors' network computes no margin there
        either (figure 2). For networks in evaluation mode whose norms do not average over the image.
        """
        x = pad_to_multiple(x, 2**self.depth)
        # A mosaic took 53 s in place of 70 with the paper's network (docs/research/lab-log.md, 2026-11-26).
        rows, columns = (self._needed(side, size) for side, size in zip(core, x.shape[-2:], strict=True))
        # From the wanted pixels downwards: what each level needs of the one below.
        windows = list(zip(rows, columns, strict=True))
        x, skips = self._contract(x)
        x = x[..., *windows[-1]]
        for level in reversed(range(self.depth)):
            here, below = windows[level], windows[level + 1]
            upsampled = self.up[level](x)[..., *_relative_to(below, here, 2)]
            x = self.decoder[level](torch.cat([skips.pop()[..., *here], upsampled], dim=1))
        logits: Tensor = self.output(x[..., *_relative_to(windows[0], core)])
        return logits

    def _needed(self, rows: slice, size: int) -> list[slice]:
        """Rows (or columns) to compute at each level of the expanding path, finest first, and at the bottom."""
        needed = []
        for level in range(self.depth):
            needed.append(_clipped(input_range([CONV, CONV], rows), size >> level))
            rows = input_range([self._up_layer], needed[-1])
        return [*needed, _clipped(rows, size >> self.depth)]

    def _contract(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips: list[Tensor] = []
        for level, units in enumerate(self.encoder):
            x = units(self.pool(x) if level else x)
            # The paper's authors drop out "at the end of the contracting path": its two deepest levels.
            x = self.dropout(x) if level >= self.depth - 1 else x
            skips.append(x)
        return skips.pop(), skips


def _clipped(rows: slice, size: int) -> slice:
    # Beyond the image convolutions pad with zeros by themselves, as they do for the whole image.
    return slice(max(0, rows.start), min(size, rows.stop))


def _relative_to(outer: Window, inner: Window, scale: int = 1) -> Window:
    """The inner window in coordinates of the outer one, which is given at a resolution `scale` times lower."""
    (top, left), (rows, columns) = ((scale * side.start for side in outer), inner)
    return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


def _upsampling(inputs: int, outputs: int, upsampling: str) -> nn.Module:
    """`(B, inputs, H, W)` to `(B, outputs, 2 H, 2 W)`."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    if upsampling == "bilinear":
        # The 1x1 convolution commutes with interpolation, and before it has a quarter of the pixels.
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    raise CompsegError(f"upsampling: expected transposed or bilinear; got {upsampling!r}")
