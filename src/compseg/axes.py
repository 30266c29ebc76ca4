"""From the channels that an image has to those that a segmenter or a cohort expects: one rule for all that reads.

Positions are converted between units, put in order and interpolated linearly; names are put in order. What lies outside
the given range, or has no such name, is refused. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.samples import Channels, Image

# Of a channel's spacing. Axes that were written with two decimals, or as float32, are off by up to a hundredth.
SAME = 0.02
EDGE = 0.5  # of a spacing that a channel may lie beyond the last given one, whose value it then takes
GAP = 4.0  # spacings between two neighbours from which something was left out there, as where wax was dropped

# What each unit is called, without case, blanks and carets. Raman shifts are counted in the same unit as wavenumbers.
UNITS = {
    "cm-1": ("cm-1", "1/cm", "cm⁻¹", "percm", "rel.1/cm", "wavenumber", "wavenumbers", "wavenumber(cm-1)"),
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "um": ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"),
    "eV": ("ev", "electronvolt", "electronvolts"),
}
_PER_CM = {"cm-1": 1.0, "nm": 1e7, "um": 1e4, "eV": 8065.543937}  # wavenumber of 1 unit; lengths are reciprocal
Values = NDArray[np.float64]


def unit_of(text: str) -> str:
    """A unit in the word of this project, `cm-1`, `nm`, `um` or `eV`; any other stays as it is."""
    plain = "".join(text.casefold().split()).replace("^", "").replace("{", "").replace("}", "")
    return next((unit for unit, words in UNITS.items() if plain in words), text.strip())


def channels_of(axis: Channels | Sequence[float] | Sequence[str], unit: str = "", where: str = "axis") -> Channels:
    """Channels of a list: numbers are positions, and a list with any text in it holds names.

    Raises:
        CompsegError: Neither, not finite, or neither rising nor falling.
    """
    if isinstance(axis, Channels):
        return axis
    given: list[Any] = np.asarray(axis, object).tolist()  # numbers of NumPy become those of Python
    if any(isinstance(name, str) for name in given):
        return Channels(len(given), names=tuple(str(name) for name in given))
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in given):
        raise CompsegError(f"{where}: expected a list of numbers or of names, found {given}")
    return spectral(where, [float(value) for value in given], unit)


def spectral(where: str, values: Sequence[float], unit: str) -> Channels:
    """Channels at positions.

    Raises:
        CompsegError: Not finite, or neither rising nor falling.
    """
    finite = int(np.isfinite(values).sum())
    if not len(values) or finite < len(values):
        raise CompsegError(
            f"{where}: expected a finite number for each channel, found {finite} in {len(values)} rows; add the rest"
        )
    signs = {np.sign(after - before) for before, after in pairwise(values)}
    if not (signs <= {1.0} or signs <= {-1.0}):
        raise CompsegError(
            f"{where}: values neither rise nor fall throughout; list them in the order of the channels, each once"
        )
    return Channels(len(values), values=tuple(values), unit=unit)


@dataclass(frozen=True)
class Alignment:
    """How to make an image of the expected channels out of one of the given channels.

    Attributes:
        lower: For each expected channel the given one below it, `(C,)`; the channel itself where none is interpolated.
        upper: The one above it; None where none is interpolated.
        share: Of the upper one, `(C,)` in [0, 1].
        said: What is done, for the user; empty where the channels are the same.
    """

    lower: NDArray[np.intp]
    upper: NDArray[np.intp] | None
    share: NDArray[np.float32] | None
    said: str = ""

    def __call__(self, image: Image) -> Image:
        """An image `(H, W, given)` as `(H, W, expected)`; interpolated values are float32."""
        if not self.said:
            return image
        if self.upper is None or self.share is None:
            return image[..., self.lower]
        made = np.empty((*image.shape[:2], len(self.lower)), np.float32)
        for row, given in enumerate(image):  # by rows, or four copies of a large image would be in memory at once
            low = given[:, self.lower].astype(np.float32)
            made[row] = low + self.share * (given[:, self.upper] - low)
        return made


def align(given: Channels, expected: Channels, where: str) -> Alignment:
    """How the given channels become the expected ones.

    An image without an axis of its own has the expected one, if it has as many channels.

    Args:
        given: Of the image.
        expected: Of the segmenter or the cohort.
        where: The image, for messages.

    Raises:
        CompsegError: It cannot be done: another range, another kind of axis, a name that is missing.
    """
    if given.spectral and expected.spectral:
        return _by_position(given, expected, where)
    if given.names and expected.names:
        return _by_name(given, expected, where)
    known = (given.spectral or bool(given.names)) and (expected.spectral or bool(expected.names))
    if known or given.count != expected.count:
        raise CompsegError(f"{where}: has {describe(given)}, expected {describe(expected)}; {_FIX}")
    same = given == expected
    return Alignment(np.arange(expected.count), None, None, "" if same else f"taken to have {describe(expected)}")


_FIX = "give images of the same channels, or their axis"


def describe(channels: Channels) -> str:
    """Channels in a few words: how many, and from where to where or which."""
    count = f"{channels.count} channel{'s' * (channels.count != 1)}"
    if channels.spectral:
        unit = f" {channels.unit}" if channels.unit else " of unknown unit"
        return f"{count} from {channels.values[0]:g} to {channels.values[-1]:g}{unit}"
    if channels.names:
        return f"{count}, {', '.join(channels.names[:4])}{' ...' if channels.names[4:] else ''}"
    return f"{count} without an axis"


def _by_position(given: Channels, expected: Channels, where: str) -> Alignment:
    values, wanted = _converted(given, expected, where), np.asarray(expected.values)
    spacing = _spacing(wanted)
    if len(values) == len(wanted):
        for order, said in ((slice(None), ""), (slice(None, None, -1), "channels put in the other direction")):
            if (np.abs(values[order] - wanted) <= SAME * spacing).all():
                return Alignment(np.arange(len(values))[order], None, None, said)
    places = np.argsort(values)
    rising = values[places]
    _refuse_outside(given, expected, rising, wanted, spacing, where)
    place = np.interp(wanted, rising, np.arange(len(rising)))
    # Expected channels that are among the given ones keep their exact values.
    nearest = np.rint(place).astype(np.intp)
    if (np.abs(rising[nearest] - wanted) <= SAME * spacing).all():
        return Alignment(places[nearest], None, None, f"{len(wanted)} of {len(values)} channels taken")
    lower = np.clip(np.trunc(place).astype(np.intp), 0, max(len(rising) - 2, 0))
    upper, said = np.minimum(lower + 1, len(rising) - 1), f"resampled linearly from {describe(given)}"
    return Alignment(places[lower], places[upper], (place - lower).astype(np.float32), said)


def _converted(given: Channels, expected: Channels, where: str) -> Values:
    """The given positions in the expected unit; where a unit is unknown, it is taken to be the other one."""
    have, want, values = unit_of(given.unit), unit_of(expected.unit), np.asarray(given.values, np.float64)
    if have == want or not have or not want:
        return values
    if have not in _PER_CM or want not in _PER_CM:
        raise CompsegError(f"{where}: its axis is in {have}, expected {want}; give its axis in {want}")
    if (lengths := {"nm", "um"} & {have, want}) and not (values > 0).all():
        raise CompsegError(f"{where}: {values.min():g} {have} is no {'length' if have in lengths else 'wavenumber'}")
    wavenumber: Values = _PER_CM[have] / values if have in ("nm", "um") else _PER_CM[have] * values
    return np.asarray(_PER_CM[want] / wavenumber if want in ("nm", "um") else wavenumber / _PER_CM[want])


def _spacing(values: Values) -> Values:
    """Of each channel, to its nearer neighbour."""
    if len(values) == 1:
        return np.abs(values) * 1e-3
    steps = np.abs(np.diff(values))
    return np.asarray(np.minimum(np.append(steps, steps[-1]), np.insert(steps, 0, steps[0])))


def _refuse_outside(
    given: Channels, expected: Channels, rising: Values, wanted: Values, spacing: Values, where: str
) -> None:
    unit = f" {unit_of(expected.unit)}" if expected.unit else ""
    # Where the image's own channels are further apart, half of its last spacing is as near.
    margin = np.maximum(EDGE * spacing, EDGE * _spacing(rising)[[0, -1]].max())
    if ((wanted < rising[0] - margin) | (wanted > rising[-1] + margin)).any():
        hint = "; if that is another unit, give unit=" if not unit_of(given.unit) else ""
        raise CompsegError(
            f"{where}: its axis is {rising[0]:g} to {rising[-1]:g}{unit}, expected {wanted.min():g} to "
            f"{wanted.max():g}{unit}, and nothing is known outside; give images of that range{hint}"
        )
    steps = np.diff(rising)
    if len(steps) < 2:
        return
    for place in np.flatnonzero(steps > GAP * np.median(steps)):
        inside = (wanted > rising[place] + margin) & (wanted < rising[place + 1] - margin)
        if inside.any():
            raise CompsegError(
                f"{where}: has no channel between {rising[place]:g} and {rising[place + 1]:g}{unit}, where "
                f"{np.count_nonzero(inside)} are expected; give images that have them"
            )


def _by_name(given: Channels, expected: Channels, where: str) -> Alignment:
    have, want = ([name.strip().casefold() for name in each.names] for each in (given, expected))
    if have == want:
        return Alignment(np.arange(len(want)), None, None)
    if missing := [name for name, plain in zip(expected.names, want, strict=True) if plain not in have]:
        raise CompsegError(f"{where}: no channel {', '.join(missing[:4])} among {', '.join(given.names[:8])}; {_FIX}")
    if doubled := sorted({name for name in want if have.count(name) > 1}):
        raise CompsegError(f"{where}: more than one channel {doubled[0]}; rename one")
    order = np.array([have.index(name) for name in want])
    return Alignment(order, None, None, f"channels put in order by name: {', '.join(expected.names[:8])}")
