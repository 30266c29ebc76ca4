"""Any image size for networks that halve it: pad inside, crop back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow `(B, C, H, W)` at the right and bottom until both sides are multiples of `multiple`, at least two of them.

    The last row and column are repeated: zeros would draw an edge where there is none, and reflection fails where the
    image is smaller than what is missing. Growing at the far side alone keeps pixel (0, 0) on the pooling grid, so a
    tile that starts on the grid is pooled as it is within the whole image. Two multiples leave more than one pixel at
    the coarsest level, where batch and instance norm need something to average.
    """
    height, width = x.shape[-2:]
    # Export traces sizes as symbols. Its graph has to hold for all of them, so it pads always, if by nothing, and by a
    # formula, which `max` would not be; else a needless copy is spared.
    symbols = any(isinstance(side, torch.SymInt) for side in x.shape[-2:])
    larger: Callable[[int, int], int] = torch.sym_max if symbols else max
    right, bottom = (larger(2 * multiple, -(-size // multiple) * multiple) - size for size in (width, height))
    if symbols or right or bottom:
        return functional.pad(x, (0, right, 0, bottom), mode="replicate")
    return x


def crop_to(x: Tensor, height: int, width: int) -> Tensor:
    """The first `height` rows and `width` columns of `(B, M, H, W)`: what takes `pad_to_multiple` back.

    Negative padding, not a slice: a slice lies differently in memory where there is nothing to cut off, so a graph
    exported for sizes of both kinds could not hold one.
    """
    return functional.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


class Padded(nn.Module):
    """A network that needs sides divisible by `multiple`, made to take every size.

    Args:
        net: From `(B, C, H, W)` to `(B, M, H, W)`, sides divisible by `multiple`; for example one of MONAI's.
        multiple: What the network halves its input down by, for example 16 for four halvings.
    """

    def __init__(self, net: nn.Module, multiple: int) -> None:
        super().__init__()
        self.net = net
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`, any H and W."""
        height, width = x.shape[-2:]
        logits: Tensor = self.net(pad_to_multiple(x, self.multiple))
        return crop_to(logits, height, width)


class MeanOfOutputs(nn.Module):
    """A network with several output maps of the same shape, made to give their mean.

    For U-Net++ this is the authors' accurate mode (Zhou et al. 2018, arXiv:1807.10165, section 3.2): every branch
    learns and none of the parameters is left without a gradient.

    Args:
        net: From `(B, C, H, W)` to a list of `(B, M, H, W)`.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`."""
        return torch.stack(list(self.net(x))).mean(dim=0)
