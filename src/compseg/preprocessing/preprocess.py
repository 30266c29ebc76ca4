"""The one path from raw values to network input, shared by training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from compseg.memory import ReusableBuffer

STRIP = 2**17  # values: several arrays of as many fit into a core's cache, and malloc does not give them back each time


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
        self._room = ReusableBuffer()

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
        if _by_pixels(image):
            return self._in_strips(image, tissue)
        shift, scale = self._standard()
        # where, not multiplication: background may hold NaN or huge values after a correction divides by nothing.
        return torch.where(tissue, torch.addcmul(shift, self.correct(image), scale), 0.0)

    def _standard(self) -> tuple[Tensor, Tensor]:
        """What standardises in one pass, `(C, 1, 1)` each; it loses no more than float32 has lost of the raw values."""
        return (-self.mean / self.std)[:, None, None], (1 / self.std)[:, None, None]

    @torch.no_grad()
    def _in_strips(self, image: Tensor, tissue: Tensor) -> Tensor:
        """The same, a few pixels at a time, as each is corrected by itself.

        Intermediate results then stay in the processor's cache, where a whole image's would be several copies of it and
        as many trips to memory: three to five times faster at 450 channels.
        """
        B, C, H, W = image.shape
        pixels = image.permute(0, 2, 3, 1).reshape(-1, C)
        given = torch.from_numpy(self._room.lend((B * H * W, C)))
        step, (shift, scale) = max(1, STRIP // C), self._standard()
        for start in range(0, len(given), step):
            some = slice(start, start + step)
            corrected = self.correct(pixels[some].T[None, :, None])
            torch.addcmul(shift, corrected, scale, out=given[some].T[None, :, None])
        given.index_fill_(0, (~tissue).flatten().nonzero()[:, 0], 0.0)
        return given.reshape(B, H, W, C).permute(0, 3, 1, 2)


def _by_pixels(image: Tensor) -> bool:
    """Whether pixels lie one after the other on the host, and nobody asks for gradients or a graph."""
    lies_so = image.device.type == "cpu" and image.is_contiguous(memory_format=torch.channels_last)
    return lies_so and not image.requires_grad and not torch.compiler.is_compiling()


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
