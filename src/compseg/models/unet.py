"""The U-Net of the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compseg.errors import CompsegError
from compseg.models.blocks import conv_units, initialise, make_dropout, require_at_least, start_at
from compseg.models.padding import crop_to, pad_to_multiple
from compseg.models.receptive_field import BILINEAR, CONV, POOL, UNPOOL, before, receptive_field
from compseg.samples import Window


class UNet(nn.Module):
    """The original U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for any number of channels.

    Two 3x3 convolutions a level, 2x2 max-pooling down, 2x2 transposed convolutions up, skips by concatenation, a 1x1
    convolution to the output. As the CompSegNet paper (2020, sections 3.1 and 3.2) uses it, it keeps the image size
    ('same' zero padding), and SoftPlus stands for ReLU; the defaults are that network.

    Args:
        in_channels: Channels C of the image.
        out_channels: Maps M.
        width: Channels of the first level; each level doubles them.
        depth: Number of halvings.
        activation: One of `blocks.ACTIVATIONS`.
        norm: One of `blocks.NORMS`, after each 3x3 convolution.
        dropout: Probability of dropping a channel at the end of the contracting path (its last two levels, as there).
        upsampling: `transposed` or `bilinear` (then a 1x1 convolution halves the channels).
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
        depth: int = 4,
        activation: str = "softplus",
        norm: str = "none",
        dropout: float = 0.0,
        upsampling: str = "transposed",
        prior: float = 0.5,
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, out_channels=out_channels, width=width, depth=depth)
        self.depth = depth
        self.upsampling = upsampling
        widths = [width * 2**level for level in range(depth + 1)]
        steps_down = zip([in_channels, *widths[:-1]], widths, strict=True)
        self.encoder = nn.ModuleList(conv_units([before, w, w], 3, norm, activation) for before, w in steps_down)
        self.pool = nn.MaxPool2d(2)
        self.dropout = make_dropout(dropout)
        self.up = nn.ModuleList(_doubling(2 * w, w, upsampling) for w in widths[:-1])
        self.decoder = nn.ModuleList(conv_units([2 * w, w, w], 3, norm, activation) for w in widths[:-1])
        self.output = nn.Conv2d(width, out_channels, 1)
        initialise(self)
        start_at(self.output, prior)

    @property
    def layers(self) -> list[str]:
        """The longest path from image to map, in the words of `models.receptive`."""
        return [CONV, CONV, POOL] * self.depth + [CONV, CONV] + [self._doubled, CONV, CONV] * self.depth

    @property
    def _doubled(self) -> str:
        return BILINEAR if self.upsampling == "bilinear" else UNPOOL

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that one output pixel sees (204 for the paper's network)."""
        return receptive_field(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`, any H and W."""
        height, width = x.shape[-2:]
        x, skips = self._contract(pad_to_multiple(x, 2**self.depth))
        logits: Tensor = self.output(self._expand(x, skips))
        return crop_to(logits, height, width)

    def forward_window(self, x: Tensor, core: Window) -> Tensor:
        """The logits of a part of an image, `self(x)[..., *core]`, for less work where the margin is wide.

        The expanding path is computed only where the part depends on it, as the authors' network computes no margin
        either (figure 2). For networks in evaluation mode whose norms do not average over the image.
        """
        x = pad_to_multiple(x, 2**self.depth)
        rows, columns = (self._needed(part, size) for part, size in zip(core, x.shape[-2:], strict=True))
        windows = list(zip(rows, columns, strict=True))
        x, skips = self._contract(x)
        x = x[..., *windows[-1]]
        for level in reversed(range(self.depth)):
            here, below = windows[level], windows[level + 1]
            doubled = self.up[level](x)[..., *_counted_from(below, here, 2)]
            x = self.decoder[level](torch.cat([skips.pop()[..., *here], doubled], dim=1))
        logits: Tensor = self.output(x[..., *_counted_from(windows[0], core)])
        return logits

    def _needed(self, wanted: slice, size: int) -> list[slice]:
        """Rows (or columns) at which each level of the expanding path, finest first, and the bottom are computed."""
        needed = []
        for level in range(self.depth):
            needed.append(_clipped(before([CONV, CONV], wanted), size >> level))
            wanted = before([self._doubled], needed[-1])
        return [*needed, _clipped(wanted, size >> self.depth)]

    def _contract(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips: list[Tensor] = []
        for level, units in enumerate(self.encoder):
            x = units(self.pool(x) if level else x)
            x = self.dropout(x) if level >= self.depth - 1 else x
            skips.append(x)
        return skips.pop(), skips

    def _expand(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for level in reversed(range(self.depth)):
            x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], dim=1))
        return x


def _clipped(part: slice, size: int) -> slice:
    return slice(max(0, part.start), min(size, part.stop))


def _counted_from(whole: Window, part: Window, times: int = 1) -> Window:
    """A part in pixels of which `times` make one of the whole, counted from the whole's first."""
    (top, left), (rows, columns) = ((times * side.start for side in whole), part)
    return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


def _doubling(inputs: int, outputs: int, upsampling: str) -> nn.Module:
    """`(B, inputs, H, W)` to `(B, outputs, 2 H, 2 W)`."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    if upsampling == "bilinear":
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    raise CompsegError(f"upsampling: expected transposed or bilinear; got {upsampling!r}")
