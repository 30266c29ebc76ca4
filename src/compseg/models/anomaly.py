"""Anomaly detection as a baseline: how far what a frozen encoder sees of a patch lies from what it saw of healthy ones.

Both learn from healthy training samples alone, on the features that `model=pretrained` begins with. A distance d
becomes the activation d^2 / (d^2 + q^2), so the logit is 2 log(d / q): one half at q, below which .95 of the patches
lie of healthy training samples that were left out of the fit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from compseg.errors import CompsegError
from compseg.models.baselines import idle_parameter
from compseg.models.blocks import require_at_least
from compseg.models.geometry import crop_to, pad_to_multiple
from compseg.models.pretrained import STRIDE, checked_factor, frozen_encoder, magnified, restored

QUANTILE = 0.95
LEFT_OUT = 4  # of so many healthy samples one is left out of the fit, for the quantile
LEAST = 1e-4  # of d / q: the logarithm stays finite
RIDGE = 0.01  # added to the covariance's diagonal (Defard et al., 3.1)
BLOCK = 250  # of the bank, compared at a time: a large image would need gigabytes for all of it


class DistanceToHealthy(nn.Module):
    """What both detectors have in common: colours, features, patches that are kept, and the map.

    Args:
        in_channels: Channels C of the preprocessed image. One is shown to the encoder three times; others than one and
            three as the three principal components of healthy pixels, each with variance 1.
        magnify: How many times larger than the image the encoder reads it.
        patches: Number of patches, of all training samples together, to fit to.
        encoder_weights: As of `PretrainedPyramid`.

    Attributes:
        centre: `(C,)`, subtracted from each pixel.
        colours: `(3, C)`, from pixels to what the encoder reads.
        level: q, the distance whose activation is one half.
        first: Of the encoder's three levels, the first that is used.
    """

    first = 0
    centre: Tensor
    colours: Tensor
    level: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        magnify: float = 1.0,
        patches: int = 20_000,
        encoder_weights: str | None = "imagenet",
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels, patches=patches)
        self.magnify, self.patches, self.stride = checked_factor(magnify), patches, 4 * 2**self.first
        (self.encoder, _), self.idle = frozen_encoder(encoder_weights), idle_parameter()
        self.register_buffer("centre", torch.zeros(in_channels))
        self.register_buffer("colours", torch.ones(3, 1) if in_channels == 1 else torch.eye(3, in_channels))
        self.register_buffer("level", torch.tensor(1.0))

    @property
    def dimensions(self) -> int:
        """Of a patch's features, D."""
        return sum(self.encoder.channels[self.first :])

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, 1, H, W)`, any H and W."""
        (height, width), larger = x.shape[-2:], self._read(x)
        coarse = interpolate(self.distances(self.features(larger)), scale_factor=self.stride, mode="bilinear")
        distance = restored(crop_to(coarse, *larger.shape[-2:]), (height, width), self.magnify)
        return 2 * (distance / self.level).clamp_min(LEAST).log() + 0 * self.idle

    def distances(self, features: Tensor) -> Tensor:
        """How far patches `(B, D, h, w)` lie from healthy ones, `(B, 1, h, w)`."""
        raise NotImplementedError

    def fit_patches(self, patches: Tensor, generator: torch.Generator) -> None:
        """Learn what healthy patches `(n, D)` are like."""
        raise NotImplementedError

    def features(self, larger: Tensor) -> Tensor:
        """What the encoder reads `(B, 3, H, W)` to `(B, D, h, w)`, coarser levels interpolated to the finest."""
        levels = self.encoder(pad_to_multiple(larger, STRIDE))[self.first :]
        return torch.cat([levels[0], *(_finer(each, 2**i) for i, each in enumerate(levels[1:], 1))], dim=1)

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int = 0) -> None:
        """Learn from the healthy samples.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample. They are
                gone through twice where the channels have to become three.
            count: Number of samples, so that each gives its part of `patches`.
            seed: Of the choice of patches.

        Raises:
            CompsegError: Healthy samples have fewer than two patches of tissue.
        """
        generator, share = torch.Generator().manual_seed(seed), max(1, self.patches // count)
        if len(self.centre) not in (1, 3):
            self._fit_colours([_some(i[:, t[0]].T, share, generator) for i, t, label in samples if not label])
        kept = [_some(self._of_tissue(i, t), share, generator) for i, t, label in samples if not label]
        kept = [each for each in kept if len(each)]
        if sum(map(len, kept)) < 2:
            raise CompsegError(
                f"method={type(self).__name__.lower()}: learns from healthy training samples, whose tissue has fewer "
                "than two patches; check labels and tissue masks"
            )
        # The patches of a sample resemble one another: those that were fitted to would seem nearer than new ones are.
        left_out, seen = kept[::LEFT_OUT], [each for i, each in enumerate(kept) if i % LEFT_OUT] or kept
        self.fit_patches(torch.cat(seen), generator)
        distances = self.distances(torch.cat(left_out).T[None, :, :, None])
        self.level.copy_(distances.flatten().quantile(QUANTILE).clamp_min(1e-6))

    def _read(self, x: Tensor) -> Tensor:
        seen = conv2d(x - self.centre[:, None, None], self.colours[..., None, None])
        return magnified(seen, self.magnify)

    def _of_tissue(self, image: Tensor, tissue: Tensor) -> Tensor:
        """The features `(n, D)` of the patches of an image that lie on tissue by half."""
        features = self.features(self._read(image[None]))
        mask, size = magnified(tissue[None].float(), self.magnify), (self.stride * s for s in features.shape[-2:])
        # What was padded is no tissue.
        share = avg_pool2d(crop_to(mask, *size), self.stride)[0, 0]
        return features[0][:, share >= 0.5].T

    def _fit_colours(self, pixels: list[Tensor]) -> None:
        healthy = torch.cat(pixels).double()
        values, vectors = torch.linalg.eigh(torch.cov(healthy.T, correction=0))
        # An eigenvector's sign is arbitrary: here its largest entry is positive.
        signs = vectors.gather(0, vectors.abs().argmax(0)[None]).sign()
        components = (vectors * signs / values.clamp_min(1e-6).sqrt()).T.flip(0)[:3]
        self.centre.copy_(healthy.mean(0))
        self.colours.zero_()[: len(components)] = components.float()

    def __repr__(self) -> str:
        """What `fit` found, without the encoder's layers."""
        return f"{type(self).__name__}(activation .5 at distance {float(self.level):.3g}, {QUANTILE:.0%} of healthy)"


class PaDiM(DistanceToHealthy):
    """Mahalanobis distance to a Gaussian of healthy patches (Defard et al. 2020, arXiv:2011.08785).

    One Gaussian over all positions, where the source has one for each: samples have any size, and tissue lies anywhere.
    All features of three levels are used, where the source chooses some at random; the map is not blurred.

    Attributes:
        mean: `(D,)`.
        whitening: `(D, D)`, the inverse of the covariance's Cholesky factor.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        magnify: float = 1.0,
        patches: int = 20_000,
        encoder_weights: str | None = "imagenet",
    ) -> None:
        super().__init__(in_channels, magnify=magnify, patches=patches, encoder_weights=encoder_weights)
        self.register_buffer("mean", torch.zeros(self.dimensions))
        self.register_buffer("whitening", torch.eye(self.dimensions))

    def distances(self, features: Tensor) -> Tensor:
        """`(B, D, h, w)` to `(B, 1, h, w)`."""
        white = conv2d(features - self.mean[:, None, None], self.whitening[..., None, None])
        return white.square().sum(dim=1, keepdim=True).clamp_min(1e-12).sqrt()

    def fit_patches(self, patches: Tensor, generator: torch.Generator) -> None:
        """Mean and covariance of `(n, D)`."""
        del generator
        healthy, eye = patches.double(), torch.eye(self.dimensions, dtype=torch.double)
        factor = torch.linalg.cholesky(torch.cov(healthy.T, correction=min(1, len(healthy) - 1)) + RIDGE * eye)
        self.mean.copy_(healthy.mean(0))
        self.whitening.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))


class PatchCore(DistanceToHealthy):
    """Distance to the nearest of a bank of healthy patches (Roth et al. 2021, arXiv:2106.08265).

    Features of two levels, each averaged over 3x3; the bank is a greedy coreset (Sener and Savarese 2018,
    arXiv:1708.00489), found without the source's random projection, because D is 152. The map is not blurred; the
    sample's output is that of its furthest patch, without the source's weight.

    Args:
        in_channels: As of `DistanceToHealthy`, and so are `magnify`, `patches` and `encoder_weights`.
        magnify: See there.
        patches: See there.
        memory: Patches in the bank; where there are fewer, some stand there twice.
        encoder_weights: See there.

    Attributes:
        bank: `(memory, D)`.
    """

    first = 1
    bank: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        magnify: float = 1.0,
        patches: int = 20_000,
        memory: int = 2_000,
        encoder_weights: str | None = "imagenet",
    ) -> None:
        super().__init__(in_channels, magnify=magnify, patches=patches, encoder_weights=encoder_weights)
        require_at_least(1, memory=memory)
        self.register_buffer("bank", torch.zeros(memory, self.dimensions))

    def features(self, larger: Tensor) -> Tensor:
        """As of `DistanceToHealthy`, averaged over a patch and its neighbours."""
        # Averaging commutes with joining levels but for the rim of what is interpolated.
        return avg_pool2d(super().features(larger), 3, stride=1, padding=1, count_include_pad=False)

    def distances(self, features: Tensor) -> Tensor:
        """`(B, D, h, w)` to `(B, 1, h, w)`."""
        squares = torch.stack([_least(features, block) for block in torch.split(self.bank, BLOCK)]).amin(dim=0)
        return (features.square().sum(dim=1, keepdim=True) + squares).clamp_min(1e-12).sqrt()

    def fit_patches(self, patches: Tensor, generator: torch.Generator) -> None:
        """Fill the bank from `(n, D)`."""
        self.bank.copy_(patches[coreset(patches, len(self.bank), generator)])


def coreset(patches: Tensor, size: int, generator: torch.Generator) -> list[int]:
    """Which of `(n, D)` to keep: the first at random, each next one as far as can be from all before."""
    chosen = [int(torch.randint(len(patches), (1,), generator=generator))]
    squares, nearest = patches.square().sum(1), torch.full((len(patches),), torch.inf)
    while len(chosen) < size:
        last = chosen[-1]
        nearest = torch.minimum(nearest, squares - 2 * patches @ patches[last] + squares[last])
        nearest[last] = 0  # but for rounding
        chosen.append(int(nearest.argmax()))
    return chosen


def _least(features: Tensor, block: Tensor) -> Tensor:
    """The least |b|^2 - 2 f b over a block `(n, D)` of the bank: with |f|^2, the squared distance to the nearest."""
    products = conv2d(features, -2 * block[..., None, None], block.square().sum(1))
    return products.amin(dim=1, keepdim=True)


def _some(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:count]]


def _finer(x: Tensor, factor: int) -> Tensor:
    return interpolate(x, scale_factor=factor, mode="bilinear")
