"""Baselines: maps that need no network. A trained segmenter is worth what it gains over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

FULL = 20.0  # a logit whose sigmoid is exactly 1 in float32


class AllOnes(nn.Module):
    """Activation 1 everywhere: `z = 20`, for any image.

    The lower bound of weakly supervised localisation (Belharbi et al., TMI 2022, arXiv 2011.07221): its Dice is that
    of calling all tissue diseased, its pixel average precision the share of disease, its sample AUC one half.
    """

    layers: Sequence[str] = ()  # a pixel sees itself alone

    def __init__(self) -> None:
        super().__init__()
        self.idle = idle_parameter()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, 1, H, W)`, all the same."""
        # The parameter has to take part: DDP refuses one that gets no gradient.
        return torch.full_like(x[:, :1], FULL) + 0 * self.idle


class SingleBand(nn.Module):
    """One channel, up or down, against a level: `z = s (x_c - t)`. The oldest method of spectral histology.

    Fitted in closed form from the training samples' labels, where every tissue pixel has the label of its sample:

    * channel c and sign s have the highest area under the ROC between pixels of disease and of healthy samples: the
      probability that a disease pixel lies above a healthy one (Mann and Whitney 1947, ties count half);
    * level t is where the share of disease pixels beyond it exceeds the share of healthy ones most (Youden 1950); the
      activation there is 0.5.

    The area is that of pixels, not of sample means: with a few dozen samples many channels would tie at an area of 1,
    and the choice among them would be arbitrary.

    Args:
        in_channels: Channels C of the preprocessed image.
        pixels: Number of tissue pixels, of all samples together, to fit on.

    Attributes:
        channel: c, from 0.
        sign: s, 1 or -1.
        level: t, in units of the preprocessed channel.
        area: Under the ROC, of the chosen channel and sign on the pixels that it was fitted on.
    """

    layers: Sequence[str] = ()
    channel: Tensor
    sign: Tensor
    level: Tensor
    area: Tensor

    def __init__(self, in_channels: int, pixels: int = 100_000) -> None:
        super().__init__()
        self.in_channels, self.pixels = in_channels, pixels
        self.idle = idle_parameter()
        self.register_buffer("channel", torch.tensor(0))
        self.register_buffer("sign", torch.tensor(1.0))
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("area", torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to logits `(B, 1, H, W)`."""
        # Selected by a tensor, because int(self.channel) would wait for the device.
        return self.sign * (x.index_select(1, self.channel[None]) - self.level) + 0 * self.idle

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int = 0) -> None:
        """Find channel, sign and level.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time.
            count: Number of samples, so that each gives its part of `pixels`.
            seed: Of the choice of pixels.
        """
        generator = torch.Generator().manual_seed(seed)
        kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
        for image, tissue, label in samples:
            spectra = image[:, tissue[0]]
            chosen = torch.randperm(spectra.shape[1], generator=generator)[: max(1, self.pixels // count)]
            kinds[label].append(spectra[:, chosen])
        # Sorted once: areas and levels are then found by binary search.
        healthy, disease = (torch.cat(spectra, dim=1).sort(dim=1).values for spectra in kinds)
        areas = torch.stack([roc_area(d, h) for d, h in zip(disease, healthy, strict=True)])
        channel = (areas - 0.5).abs().argmax()
        # An area below one half is that of the opposite sign.
        sign = torch.where(areas[channel] < 0.5, -1.0, 1.0)
        self.channel.copy_(channel)
        self.sign.copy_(sign)
        self.level.copy_(sign * youden_level(sign * disease[channel], sign * healthy[channel]))
        self.area.copy_(0.5 + (areas[channel] - 0.5).abs())

    def extra_repr(self) -> str:
        """What `fit` found."""
        sign = "above" if self.sign > 0 else "below"
        return f"channel {int(self.channel)} {sign} {float(self.sign * self.level):.3g}, area {float(self.area):.3f}"


def idle_parameter() -> nn.Parameter:
    """A parameter without effect: optimizers and DDP refuse a module that has nothing to train."""
    return nn.Parameter(torch.zeros(1))


def roc_area(ones: Tensor, zeros: Tensor) -> Tensor:
    """The probability that one of `ones` `(n,)` lies above one of `zeros` `(m,)`, both ascending; ties count half."""
    below, upto = (torch.searchsorted(zeros, ones, right=right).double().mean() for right in (False, True))
    return (below + upto) / (2 * len(zeros))


def youden_level(ones: Tensor, zeros: Tensor) -> Tensor:
    """The level above which the share of `ones` exceeds that of `zeros` most."""
    levels = torch.cat([ones, zeros]).sort().values
    above = [
        1 - torch.searchsorted(values.sort().values, levels, right=True).double() / len(values)
        for values in (ones, zeros)
    ]
    best = (above[0] - above[1]).argmax()
    # Half-way to the next value: the level itself is one of the values, whose activation would be exactly 0.5.
    return (levels[best] + levels[(best + 1).clamp(max=len(levels) - 1)]) / 2
