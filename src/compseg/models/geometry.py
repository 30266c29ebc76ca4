"""The geometry of a network: any image size, by padding and cropping back, and how far a pixel of the map sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CONV, POOL, UNPOOL, BILINEAR = "3x3", "down 2", "up 2", "bilinear 2"


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad `(B, C, H, W)` at the right and bottom until both sides are multiples of `multiple`, at least two of them.

    The last row and column are repeated: zeros would make an edge where there is none, and reflection fails where the
    image is smaller than the padding. Padding the far side alone keeps pixel (0, 0) on the pooling grid, so a tile that
    starts on the grid is pooled as within the whole image. Two multiples leave more than one pixel at the coarsest
    level, where batch and instance norm need something to average.
    """
    height, width = x.shape[-2:]
    # torch.export traces sizes as symbols. One graph has to hold for all of them, so it always pads, if by nothing, and
    # by a formula, which Python's `max` is not. With known sizes a needless copy is spared.
    symbolic = any(isinstance(side, torch.SymInt) for side in x.shape[-2:])
    larger: Callable[[int, int], int] = torch.sym_max if symbolic else max
    # Rounding up by -(-size // multiple) fails in ONNX, whose integer division truncates towards zero; a maximum of
    # multiples, which has no common factor, is halved by torch 2.8 to sizes that are no whole numbers.
    right, bottom = (multiple * larger(2, (size + multiple - 1) // multiple) - size for size in (width, height))
    if symbolic or right or bottom:
        return functional.pad(x, (0, right, 0, bottom), mode="replicate")
    return x


def crop_to(x: Tensor, height: int, width: int) -> Tensor:
    """The first `height` rows and `width` columns of `(B, M, H, W)`: undoes `pad_to_multiple`.

    Negative padding, not a slice: the strides of a slice depend on whether anything is cut off, so one exported graph
    could not serve sizes of both kinds.
    """
    return functional.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


class Padded(nn.Module):
    """Makes a network whose sides have to be divisible by `multiple` take every size.

    Args:
        net: From `(B, C, H, W)` to `(B, M, H, W)`, sides divisible by `multiple`; for example one of MONAI's.
        multiple: The factor by which the network reduces its input, for example 16 for four halvings.
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
    """Makes a network with several output maps of the same shape give their mean.

    For U-Net++ this is the authors' accurate mode (Zhou et al. 2018, arXiv:1807.10165, section 3.2): every branch
    learns and no parameter is left without a gradient.

    Args:
        net: From `(B, C, H, W)` to a list of `(B, M, H, W)`.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`."""
        return torch.stack(list(self.net(x))).mean(dim=0)


def receptive_field(layers: Sequence[str]) -> int:
    """Side in pixels of the square of the input that one output pixel can depend on, at the pixel where it is largest.

    Args:
        layers: The longest path from input to output, of `CONV` (3x3), `POOL` (2x2, stride 2), `UNPOOL` (2x2, stride 2)
            and `BILINEAR` (doubling). Norms do not count: group and instance norm add the image's mean and variance.
    """
    # How far a pixel sees depends on its place in the pooling grid, which repeats after a stride.
    fields = [input_range(layers, slice(pixel, pixel + 1)) for pixel in range(stride(layers))]
    return max(int(field.stop - field.start) for field in fields)


def radius(layers: Sequence[str]) -> int:
    """Pixels from an output pixel to the furthest input pixel that it can depend on, in any direction.

    A tile that begins at a multiple of `stride` and is read with this margin gives the whole image's values in its
    middle.
    """
    fields = [(pixel, input_range(layers, slice(pixel, pixel + 1))) for pixel in range(stride(layers))]
    return max(int(max(pixel - field.start, field.stop - 1 - pixel)) for pixel, field in fields)


def stride(layers: Sequence[str]) -> int:
    """Pixels after which the network repeats itself: 2 to the number of halvings."""
    return int(2 ** sum(layer == POOL for layer in layers))


def input_range(layers: Sequence[str], pixels: slice) -> slice:
    """The input pixels that some output pixels of these layers can depend on; they may lie outside the image."""
    low, high = pixels.start, pixels.stop - 1
    for layer in reversed(layers):
        match layer:
            case "3x3":
                low, high = low - 1, high + 1
            case "down 2":
                low, high = 2 * low, 2 * high + 1
            # A 2x2 convolution transposed with stride 2 reads one pixel; bilinear doubling reads a neighbour too.
            case "up 2":
                low, high = low // 2, high // 2
            case _:
                low, high = (low - 1) // 2, (high + 1) // 2
    return slice(low, high + 1)
