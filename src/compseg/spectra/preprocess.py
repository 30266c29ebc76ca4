"""The one path from raw values to network input, shared by training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Corrections in order, then per-channel standardisation, then zero outside the tissue.

    Standardisation is fitted on the training samples' tissue pixels (`fit_standardisation`) and is part of the state
    dict, so it travels with the segmenter.

    Args:
        channels: Number of channels C.
        corrections: Modules from `(B, C, H, W)` float32 to the same shape, applied in order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, corrections: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.corrections = nn.Sequential(*corrections)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def correct(self, image: Tensor) -> Tensor:
        """The corrections alone: `(B, C, H, W)` of any dtype to float32."""
        # Half precision is for the network: a derivative of spectra, say, would lose what it is taken for.
        with torch.autocast(image.device.type, enabled=False):
            corrected: Tensor = self.corrections(image.float())
        return corrected

    def forward(self, image: Tensor, tissue: Tensor) -> Tensor:
        """Network input.

        Args:
            image: `(B, C, H, W)`, raw values of any dtype.
            tissue: `(B, 1, H, W)` bool.

        Returns:
            `(B, C, H, W)` float32, about zero mean and unit variance on tissue, exactly zero elsewhere.
        """
        # where, not multiplication: background may hold NaN or huge values after a correction divides by nothing.
        return torch.where(tissue, self.standardise(image), 0.0)

    def standardise(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        """Corrections and standardisation alone, for those who see to the background themselves.

        `(B, C, H, W)` of any dtype to float32, into `out` if one of the same shape is given.
        """
        return torch.div(self.correct(image) - self.mean[:, None, None], self.std[:, None, None], out=out)


@torch.no_grad()
def fit_standardisation(preprocess: Preprocess, samples: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set `mean` and `std` from tissue pixels after the corrections, one sample at a time, in float64.

    Args:
        preprocess: Changed in place.
        samples: Pairs of image `(C, H, W)` and tissue `(1, H, W)` bool. Every pixel weighs the same.
    """
    channels = preprocess.mean.numel()
    count, mean, square = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for image, tissue in samples:
        pixels = preprocess.correct(image[None])[0][:, tissue[0]].double()
        if not (n := pixels.shape[1]):
            continue
        # Chan's update of mean and sum of squares: no loss of digits, whatever the offset of the data.
        shift = pixels.mean(dim=1) - mean
        square += (pixels - pixels.mean(dim=1, keepdim=True)).square().sum(dim=1) + shift.square() * (
            count * n / (count + n)
        )
        mean += shift * (n / (count + n))
        count += n
    if count:
        preprocess.mean.copy_(mean)
        # A channel that never changes carries nothing; dividing by one keeps it at zero.
        std = (square / count).sqrt()
        preprocess.std.copy_(torch.where(std > 1e-6, std, 1.0))
