"""The one path from raw values to network input, shared by training, evaluation and prediction.

`Preprocess` applies corrections and standardisation. The corrections below it act on each pixel's spectrum, on
`(B, C, H, W)` tensors; each removes something that is physics rather than biology. A correction of your own is a module
of the same form in any file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, normalize, pad

from compseg.memory import ReusableBuffer
from compseg.preprocessing.fitting import Samples, mean_and_squares

# Values: several arrays of this size fit into a core's cache, and malloc keeps them for the next strip. With half of it
# detrend and SNV take a sixth longer, because each strip costs its calls; with twice as much a derivative of 450
# channels takes a quarter longer.
STRIP = 2**18


class Preprocess(nn.Module):
    """Corrections in order, then per-channel standardisation, then zero outside the tissue.

    Standardisation is fitted on the training samples' tissue pixels (`fit_standardisation`) and is part of the state
    dict, so it travels with the segmenter.

    Args:
        channels: Number of channels C.
        corrections: Modules from `(B, C, H, W)` float32 to the same shape, applied in order. Some change the channels;
            C is the number after the last.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, corrections: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.corrections = nn.Sequential(*corrections)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self._buffer = ReusableBuffer()

    def correct(self, image: Tensor) -> Tensor:
        """Only the corrections: an image `(B, ..., H, W)` of any dtype, to `(B, C, H, W)` float32."""
        # Half precision is for the network: a derivative, for example, is a small difference of large numbers.
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
        if by_pixels(image):
            return self._in_strips(image, tissue)
        shift, scale = self._standard()
        shift, scale = shift[:, None, None], scale[:, None, None]
        # where, not multiplication: in the background a correction may divide by zero and leave NaN or huge values.
        return torch.where(tissue, torch.addcmul(shift, self.correct(image), scale), 0.0)

    def _standard(self) -> tuple[Tensor, Tensor]:
        """Shift and scale, `(C,)` each, that standardise in one pass.

        The rounding error is no larger than the one that float32 made of the raw values.
        """
        return -self.mean / self.std, 1 / self.std

    @torch.no_grad()
    def _in_strips(self, image: Tensor, tissue: Tensor) -> Tensor:
        """The same, tissue pixels alone and a few at a time."""
        result, places = self.empty_input(tissue), tissue.flatten().nonzero()[:, 0]
        for strip, spectra in self.strips(image, places):
            put(spectra_of(result), places[strip], spectra)
        return result

    def empty_input(self, tissue: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 in channels_last host memory to be filled on tissue `(B, 1, H, W)`, elsewhere zero.

        It is the memory of the one before, once nobody holds that.
        """
        (B, _, H, W), C = tissue.shape, len(self.mean)
        result = torch.from_numpy(self._buffer.lend((B, H, W, C))).permute(0, 3, 1, 2)
        spectra_of(result).index_fill_(0, (~tissue).flatten().nonzero()[:, 0], 0.0)
        return result

    @torch.no_grad()
    def strips(self, image: Tensor, places: Tensor, background: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Preprocessed spectra of some pixels, a few at a time, because each pixel is corrected by itself.

        Intermediate results then stay in the processor's cache; those of a whole image would be several copies of it,
        written to memory and read again.

        Args:
            image: `(B, C, H, W)`, raw values in channels_last host memory.
            places: Numbers of the pixels among all B x H x W, `(n,)`.
            background: Spectrum `(C,)` that is subtracted.

        Yields:
            A range of `places` and the spectra there, `(r, C)` float32, which the next ones overwrite.
        """
        standardise_ = self.standardiser(background)
        for strip, spectra in self.corrected_strips(image, places):
            yield strip, standardise_(spectra)

    @torch.no_grad()
    def corrected_strips(self, image: Tensor, places: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The same before standardisation; see `strips`."""
        for strip, spectra in copied_strips(image, places):
            yield strip, self._correct_pixels(spectra)

    def standardiser(self, background: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """What standardises corrected spectra `(n, C)` in place, less a background spectrum `(C,)` where one is given.

        Both are one operation, so that spectra are the same whether they are kept in between or not.
        """
        shift, scale = self._standard()
        shift = shift if background is None else shift - background
        return lambda spectra: torch.addcmul(shift, spectra, scale, out=spectra)

    def _correct_pixels(self, spectra: Tensor) -> Tensor:
        """The corrections of `(n, C)` float32, whose memory may be used."""
        kind = spectra.device.type
        # Not entered where there is nothing to switch off, because each strip would pay for it.
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            for correction in self.corrections:
                # Where a correction can work in place it takes no memory, which costs more than the arithmetic.
                in_place = getattr(correction, "correct_pixels_", None)
                spectra = correction(spectra.T[None, :, None])[0, :, 0].T if in_place is None else in_place(spectra)
        return spectra


def copied_strips(image: Tensor, places: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Copies of the spectra of some pixels in float32, a few at a time; see `Preprocess.strips`."""
    pixels = spectra_of(image)
    step = max(1, STRIP // pixels.shape[1])
    copies = pixels.new_empty(step, pixels.shape[1], dtype=torch.float32)
    raw = copies if pixels.dtype == torch.float32 else pixels.new_empty(copies.shape)  # picked out, then converted
    for start in range(0, len(places), step):
        some = places[start : start + step]
        spectra, run = copies[: len(some)], run_of(some)
        spectra.copy_(torch.index_select(pixels, 0, some, out=raw[: len(some)]) if run is None else pixels[run])
        yield slice(start, start + step), spectra


def put(target: Tensor, places: Tensor, spectra: Tensor) -> None:
    """Write spectra `(n, C)` to places `(n,)`, in rising order, of all `(N, C)`."""
    run = run_of(places)
    if run is None:
        target.index_copy_(0, places, spectra)
    else:
        target[run] = spectra


def run_of(places: Tensor) -> slice | None:
    """The places `(n,)`, at least one, as a slice where each follows the one before: that is read in half the time."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first == len(places) - 1 else None


def spectra_of(image: Tensor) -> Tensor:
    """The pixels `(B * H * W, C)` of `(B, C, H, W)` in channels_last memory, which they share."""
    return image.permute(0, 2, 3, 1).view(-1, image.shape[1])


def by_pixels(image: Tensor) -> bool:
    """Whether the channels of a pixel are contiguous in host memory, and neither gradients nor a graph are needed."""
    contiguous = image.device.type == "cpu" and image.is_contiguous(memory_format=torch.channels_last)
    return contiguous and not image.requires_grad and not torch.compiler.is_compiling()


class _After:
    """Samples after some corrections, as often as they are asked for."""

    def __init__(self, samples: Callable[[], Samples], corrections: nn.Module) -> None:
        self.samples, self.corrections = samples, corrections

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for image, tissue in self.samples():
            yield self.corrections(image.float()[None])[0], tissue


@torch.no_grad()
def fit_corrections(preprocess: Preprocess, samples: Callable[[], Samples]) -> None:
    """Let corrections that learn from the training samples do so, in order: each sees what the ones before it leave.

    Args:
        preprocess: Changed in place.
        samples: Each call gives the samples again, as `fit_standardisation` takes them.
    """
    for place, correction in enumerate(preprocess.corrections):
        if callable(fit := getattr(correction, "fit", None)):
            fit(_After(samples, preprocess.corrections[:place]))


@torch.no_grad()
def fit_standardisation(preprocess: Preprocess, samples: Samples) -> None:
    """Set `mean` and `std` from tissue pixels after the corrections, one sample at a time, in float64.

    Args:
        preprocess: Changed in place.
        samples: Pairs of image `(C, H, W)` and tissue `(1, H, W)` bool. All pixels have the same weight.
    """
    strips = (strip for image, tissue in samples for strip in _strips(image, tissue))
    corrected = (preprocess.correct(strip.T[None, :, None])[0, :, 0].double().T for strip in strips)
    mean, square, count = mean_and_squares(corrected, lambda centred: centred.square().sum(0))
    if count:
        preprocess.mean.copy_(mean)
        # A channel that never changes carries no information; dividing by one keeps it at zero.
        std = (square / count).sqrt()
        preprocess.std.copy_(torch.where(std > 1e-6, std, 1.0))


def _strips(image: Tensor, tissue: Tensor) -> Iterable[Tensor]:
    """The tissue pixels `(n, C)` of an image `(C, H, W)`, a few at a time on a processor."""
    pixels = image.permute(1, 2, 0)[tissue[0]]
    step = max(1, STRIP // len(image)) if image.device.type == "cpu" else len(pixels)
    return torch.split(pixels, step) if len(pixels) else ()


class StandardNormalVariate(nn.Module):
    """Each spectrum minus its mean, over its standard deviation (SNV; Barnes et al., Appl. Spectrosc. 43:772, 1989).

    Removes an offset and the thickness of the sample.
    """

    def correct_pixels_(self, spectra: Tensor) -> Tensor:
        """The same of spectra `(n, C)`, in place."""
        spectra -= spectra.mean(dim=1, keepdim=True)
        deviation = torch.linalg.vector_norm(spectra, dim=1, keepdim=True) / math.sqrt(spectra.shape[1])
        return spectra.mul_(deviation.clamp_min(1e-6).reciprocal_())

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape; spectra without variation (background) become zero."""
        centred = image - image.mean(dim=1, keepdim=True)
        deviation: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(image.shape[1])
        return centred / deviation.clamp_min(1e-6)


class Detrend(nn.Module):
    """Each spectrum less the polynomial that fits it best (Barnes et al., Appl. Spectrosc. 43:772, 1989).

    Removes a baseline that is offset, sloped or bent, which comes from an instrument, a slide or an array, not from the
    sample. A standard normal variate afterwards removes what is left of the thickness.

    Args:
        channels: Number of channels C, evenly spaced.
        degree: Of the polynomial, below C.
    """

    basis: Tensor

    # Degree 4, then SNV: on an array left out .08 of AP and .13 of Dice more than SNV alone; degree 2 gains less
    # (docs/research/lab-log.md).
    def __init__(self, channels: int, degree: int = 4) -> None:
        super().__init__()
        if not 0 <= degree < channels:
            raise ValueError(f"degree {degree}: expected at least 0 and less than the {channels} channels")
        # Legendre polynomials: well conditioned, so that the fit is exact in float32.
        values = np.polynomial.legendre.legvander(np.linspace(-1, 1, channels), degree)
        orthonormal = np.ascontiguousarray(np.linalg.qr(values)[0].T)  # (K, C), each polynomial contiguous
        # Not kept in checkpoints, because it follows from the arguments; so does the kernel below.
        self.register_buffer("basis", torch.from_numpy(orthonormal).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape."""
        spectra = image.movedim(1, -1)
        # Two products with the few polynomials, in place of one with a projection of C x C.
        return (spectra - linear(spectra, self.basis) @ self.basis).movedim(-1, 1)

    def correct_pixels_(self, spectra: Tensor) -> Tensor:
        """The same of spectra `(n, C)`, in place."""
        # The tall factor on the right: the product takes three quarters of the time.
        return spectra.addmm_((self.basis @ spectra.T).T, self.basis, alpha=-1)


class VectorNorm(nn.Module):
    """Each spectrum over its Euclidean length: removes only the thickness."""

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape."""
        return normalize(image, dim=1, eps=1e-6)


class Derivative(nn.Module):
    """Savitzky-Golay smoothed first or second derivative along the channels.

    Removes offset (first) or offset and slope (second derivative) of the baseline (Savitzky and Golay, Anal. Chem.
    36:1627, 1964).

    Args:
        order: 1 or 2.
        window: Odd number of channels of the local fit.
        degree: Degree of the fitted polynomial, at least `order`.
    """

    kernel: Tensor

    def __init__(self, order: int = 1, window: int = 13, degree: int = 4) -> None:
        super().__init__()
        if window % 2 == 0 or degree >= window or order > degree:
            raise ValueError(
                f"window {window} must be odd and larger than degree {degree}, which must be at least order {order}"
            )
        margin = window // 2
        # In float64 until the kernel is made: the powers go up to (window / 2) ** degree.
        powers = torch.arange(-margin, margin + 1, dtype=torch.float64)[:, None] ** torch.arange(degree + 1)
        factorial = float(torch.arange(1, order + 1).prod())
        kernel = torch.linalg.pinv(powers)[order] * factorial
        self.register_buffer("kernel", kernel.float()[None, None, :, None], persistent=False)
        self.margin = margin

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape; beyond its ends the axis repeats the last channel."""
        B, C, H, W = image.shape
        spectra = image.reshape(B, 1, C, H * W)
        padded = pad(spectra, (0, 0, self.margin, self.margin), mode="replicate")
        return conv2d(padded, self.kernel).reshape(B, C, H, W)
