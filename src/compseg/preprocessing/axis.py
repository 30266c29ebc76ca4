"""Corrections that act along the axis or change it: ranges cut out or bridged, vapour, other channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from compseg.errors import require

Ranges = Sequence[Sequence[float]]  # pairs of wavenumbers, in either order
Spectrum = Sequence[float] | str  # one value a channel; in a configuration also the table that has them
AMIDE_I = (1600.0, 1700.0)
VAPOUR = ((1300.0, 2100.0), (3410.0, 3850.0))  # of water, as Orange Spectroscopy has them


class Cut(nn.Module):
    """Only some ranges of the axis, such as 1800 to 1000 without the bands of wax.

    Args:
        wavenumbers: Of the channels, `(C,)`.
        keep: Ranges to keep, ends included; empty: all.
        drop: Ranges to leave out of these.
    """

    chosen: Tensor

    def __init__(self, wavenumbers: Sequence[float], keep: Ranges = (), drop: Ranges = ()) -> None:
        super().__init__()
        axis = np.asarray(wavenumbers, dtype=np.float64)
        chosen = (within(axis, keep) if keep else np.ones(len(axis), bool)) & ~within(axis, drop)
        require(chosen.sum() > 1, f"Cut: keep={list(keep)}, drop={list(drop)}: leave less than two of {span(axis)}")
        self.wavenumbers_after = axis[chosen].tolist()
        self.register_buffer("chosen", torch.from_numpy(np.flatnonzero(chosen)), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C', H, W)`."""
        return image.index_select(1, self.chosen)


class Bridge(nn.Module):
    """A straight line in place of a range in which something else absorbs, such as carbon dioxide at 2250 to 2450.

    Args:
        wavenumbers: Of the channels, `(C,)`.
        ranges: To bridge, each with a channel beyond both of its ends.
    """

    inside: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor

    def __init__(self, wavenumbers: Sequence[float], ranges: Ranges = ((2250.0, 2450.0),)) -> None:
        super().__init__()
        axis = np.asarray(wavenumbers, dtype=np.float64)
        inside = within(axis, ranges)
        outside = np.flatnonzero(~inside)
        places = np.flatnonzero(inside)
        after = np.searchsorted(outside, places)
        require(
            not len(places) or (after.min() > 0 and after.max() < len(outside)),
            f"Bridge: ranges={list(ranges)}: no channel beyond an end of the axis, {span(axis)}; cut the range instead",
        )
        left, right = outside[after - 1], outside[np.minimum(after, len(outside) - 1)]
        weight = (axis[places] - axis[left]) / np.where(len(places), axis[right] - axis[left], 1)
        for name, values in (("inside", places), ("left", left), ("right", right)):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self.register_buffer("weight", torch.from_numpy(weight).float()[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        line = torch.lerp(image[:, self.left], image[:, self.right], self.weight)
        return image.index_copy(1, self.inside, line)


class Vapour(nn.Module):
    """Each spectrum without its multiple of the spectrum of water vapour.

    The multiple makes the spectrum smoothest, by the sum of its squared first differences, in each range for itself:
    the lines of vapour are sharp, those of tissue are not (as the atmospheric correction of Orange Spectroscopy does).

    Args:
        wavenumbers: Of the channels, `(C,)`.
        reference: Absorbance of vapour, `(C,)`, taken with the same resolution.
        ranges: In which it absorbs.
    """

    reference: Tensor
    slopes: Tensor

    def __init__(self, wavenumbers: Sequence[float], reference: Spectrum, ranges: Ranges = VAPOUR) -> None:
        super().__init__()
        axis, vapour = np.asarray(wavenumbers, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        parts = [within(axis, [each]) * vapour for each in ranges]
        slopes = [np.diff(vapour) * (inside[1:] & inside[:-1]) for inside in (within(axis, [each]) for each in ranges)]
        squares = [max((slope**2).sum(), 1e-30) for slope in slopes]
        self.register_buffer("reference", torch.from_numpy(np.stack(parts)).float(), persistent=False)
        fits = np.stack([slope / square for slope, square in zip(slopes, squares, strict=True)])
        self.register_buffer("slopes", torch.from_numpy(fits).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        spectra = image.movedim(1, -1)
        return (spectra - (spectra.diff(dim=-1) @ self.slopes.T) @ self.reference).movedim(-1, 1)


class Resample(nn.Module):
    """Evenly spaced channels, linearly between the given ones.

    Args:
        wavenumbers: Of the channels, `(C,)`, in either direction.
        start: First of the new ones, within the given.
        stop: Last of them.
        count: How many.
    """

    left: Tensor
    weight: Tensor

    def __init__(self, wavenumbers: Sequence[float], start: float, stop: float, count: int) -> None:
        super().__init__()
        axis, wanted = np.asarray(wavenumbers, dtype=np.float64), np.linspace(start, stop, count)
        low, high = sorted((axis[0], axis[-1]))
        fits = low <= min(start, stop) and max(start, stop) <= high
        require(fits, f"Resample: {start:g} to {stop:g} is not within {span(axis)}; give start and stop inside of it")
        sign = np.sign(axis[-1] - axis[0])
        left = np.clip(np.searchsorted(sign * axis, sign * wanted, "right") - 1, 0, len(axis) - 2)
        weight = (wanted - axis[left]) / (axis[left + 1] - axis[left])
        self.wavenumbers_after = wanted.tolist()
        self.register_buffer("left", torch.from_numpy(left), persistent=False)
        self.register_buffer("weight", torch.from_numpy(weight).float()[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C', H, W)`."""
        return torch.lerp(image[:, self.left], image[:, self.left + 1], self.weight)


class BandNorm(nn.Module):
    """Each spectrum over the area of a band: thickness by the amount of protein, for amide I.

    Args:
        wavenumbers: Of the channels, `(C,)`.
        band: Its ends.
    """

    weights: Tensor

    def __init__(self, wavenumbers: Sequence[float], band: Sequence[float] = AMIDE_I) -> None:
        super().__init__()
        weights = band_weights(wavenumbers, band)
        require(
            bool(weights.any()), f"BandNorm: band={list(band)}: no channels of {span(wavenumbers)} there; give another"
        )
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape; where the band is empty (background), as it was."""
        area = torch.einsum("bchw,c->bhw", image, self.weights)[:, None]
        return image / torch.where(area.abs() > 1e-6, area, 1.0)


def within(axis: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Which channels `(C,)` lie in some of the ranges, ends included."""
    found = np.zeros(len(axis), bool)
    for one, other in ranges:
        found |= (axis >= min(one, other)) & (axis <= max(one, other))
    return found


def band_weights(wavenumbers: Sequence[float], band: Sequence[float]) -> np.ndarray:
    """Weights `(C,)` whose product with a spectrum is the area of a band, by the trapezoidal rule."""
    axis = np.asarray(wavenumbers, dtype=np.float64)
    places, weights = np.flatnonzero(within(axis, [band])), np.zeros(len(axis))
    steps = np.abs(np.diff(axis[places])) / 2
    weights[places[:-1]] += steps
    weights[places[1:]] += steps
    return weights


def span(axis: Sequence[float] | np.ndarray) -> str:
    """An axis in words."""
    return f"the {len(axis)} channels from {axis[0]:g} to {axis[-1]:g}"
