"""Building blocks of the segmenters: units of convolution, norm and activation, their initialisation, the output."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from compseg.errors import CompsegError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
NORMS = ("none", "batch", "group", "instance", "pixel")
GROUPS = 8
# An activation, or `auto`: training decides, by what the pseudo-labels mark.
Prior = float | Literal["auto"]
PRIOR_UNKNOWN = 0.5
# A step of the paper's network on an H200: 8.33 ms with groups of 8, 8.85 of 16, 8.36 of 64, 10.00 without
# (docs/research/lab-log.md, 2026-11-26).
CHANNEL_GROUP = 8  # channels that a GPU's matrix units read at once in half precision


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel, so that the norm passes no information between pixels.

    `(B, C, H, W)` to the same shape. Source: Ba et al. 2016 (arXiv:1607.06450), applied per pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(B, C, H, W)` over C."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def make_activation(name: str) -> nn.Module:
    """The activation function called `name`.

    Raises:
        CompsegError: No activation has that name.
    """
    if name not in ACTIVATIONS:
        raise CompsegError(f"activation: expected one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]()


def make_norm(name: str, channels: int) -> nn.Module:
    """The norm called `name` over `channels` channels.

    Group and instance norm average over the whole image (Wu & He 2018, arXiv:1803.08494: instance norm is group norm
    with one channel per group), batch norm over the batch in training; `pixel` stays within the pixel.

    Raises:
        CompsegError: No norm has that name.
    """
    match name:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            # As many groups as divide the channels, so that any width is allowed.
            return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "pixel":
            return PixelNorm(channels)
        case _:
            raise CompsegError(f"norm: expected one of {', '.join(NORMS)}; got {name!r}")


def make_dropout(probability: float) -> nn.Module:
    """Dropout of whole channels: neighbouring pixels are correlated, so single ones drop nothing (Tompson et al. 2015).

    Raises:
        CompsegError: `probability` is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise CompsegError(f"dropout: expected a probability in [0, 1); got {probability}")
    return nn.Dropout2d(probability) if probability else nn.Identity()


def require_at_least(least: int, **sizes: int) -> None:
    """Check that no named size is below `least`.

    Raises:
        CompsegError: One is not.
    """
    for name, size in sizes.items():
        if size < least:
            raise CompsegError(f"{name}: expected at least {least}; got {size}")


class Conv(nn.Conv2d):
    """A convolution whose input may have any number of channels at full speed.

    GPUs multiply half precision in groups of channels. Where the number of channels is no multiple of the group, cuDNN
    rearranges the whole image before each pass. Zeros that fill the last group cost less: this saves a fifth of a step
    of the paper's network. They change nothing: output, parameters and gradients are those of `nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, outputs, H, W)`."""
        # In single precision, and on a CPU, nothing is gained.
        dtype = half_precision(x)
        if dtype is None or not (missing := -self.in_channels % CHANNEL_GROUP):
            return super().forward(x)
        filled, weight = (functional.pad(given, (0, 0, 0, 0, 0, missing)) for given in (x.to(dtype), self.weight))
        # nn.Conv2d's own method, so that its stride, padding and dilation apply here too.
        output: Tensor = self._conv_forward(filled, weight, self.bias)
        return output


def half_precision(x: Tensor) -> torch.dtype | None:
    """The type of half precision in which a GPU is about to multiply `x`; None if it is not."""
    if not x.is_cuda:
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return dtype if dtype in (torch.bfloat16, torch.float16) else None


def conv_unit(inputs: int, outputs: int, kernel: int, norm: str, activation: str) -> nn.Sequential:
    """Convolution ('same' zero padding), norm, activation: `(B, inputs, H, W)` to `(B, outputs, H, W)`.

    A convolution before a norm has no bias, since the norm would remove it.
    """
    conv = Conv(inputs, outputs, kernel, padding=kernel // 2, bias=norm == "none")
    return nn.Sequential(conv, make_norm(norm, outputs), make_activation(activation))


def conv_units(widths: list[int], kernel: int, norm: str, activation: str) -> nn.Sequential:
    """Units in sequence; `widths` are the channels before the first, between, and after the last."""
    return nn.Sequential(*(conv_unit(a, b, kernel, norm, activation) for a, b in itertools.pairwise(widths)))


def initialise(net: nn.Module) -> None:
    """Set convolution weights to N(0, 2 / fan-in) and biases to 0, as the U-Net paper asks (after He et al. 2015).

    A transposed 2x2 convolution of stride 2 sees one pixel of each input channel, so its fan-in is its input channels.
    """
    for layer in net.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_channels))
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def start_at(output: nn.Conv2d, prior: Prior) -> None:
    """Make an untrained network's activations close to `prior` everywhere.

    The bias becomes logit(prior) and the weights N(0, 0.01^2), small enough that the bias dominates (Lin et al. 2017,
    arXiv:1708.02002, section 4.1).

    Raises:
        CompsegError: `prior` is not in (0, 1).
    """
    start = PRIOR_UNKNOWN if prior == "auto" else prior
    if not 0 < start < 1:
        raise CompsegError(f"prior: expected an activation in (0, 1); got {prior}")
    nn.init.normal_(output.weight, std=0.01)
    set_bias(output, start)


def set_bias(output: nn.Conv2d, prior: float) -> None:
    """Set the bias of an output to logit(prior), with `prior` in (0, 1)."""
    assert output.bias is not None  # for the type checker: output layers here have one
    nn.init.constant_(output.bias, math.log(prior / (1 - prior)))


def move_start(segmenter: nn.Module, prior: float) -> None:
    """Move an untrained segmenter of this room to another prior, in (0, 1); its weights stay as they are.

    Args:
        segmenter: With a layer `output`, or with a network inside that has one.
        prior: Approximate activation, everywhere.
    """
    for network in segmenter.modules():
        if isinstance(output := getattr(network, "output", None), nn.Conv2d):
            set_bias(output, prior)
