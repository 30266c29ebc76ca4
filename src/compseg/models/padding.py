"""Any image size for networks that halve it: pad inside, crop back."""

from __future__ import annotations

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
    right, bottom = _missing(width, multiple), _missing(height, multiple)
    # An exported graph has to hold for every size, so it pads always, if by nothing; else a needless copy is spared.
    if torch.compiler.is_exporting() or right or bottom:
        return functional.pad(x, (0, right, 0, bottom), mode="replicate")
    return x


def _missing(size: int, multiple: int) -> int:
    # sym_max is max for plain sizes, and stays a formula where export traces sizes as symbols.
    padded: int = torch.sym_max(2 * multiple, (size + multiple - 1) // multiple * multiple)  # type: ignore[no-untyped-call]
    return padded - size


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
