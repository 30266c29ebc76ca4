"""What a cohort's files were like: new ones are read in the same way and on the same scale. Needs numpy alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from compseg.errors import CompsegError
from compseg.samples import Channels, Image, Mask

SEEN = 4096  # pixels of an image that are enough to know its scale
# Spectra of thin and thick tissue are within a factor of ten; fractions and percents, 8 and 16 bits, are beyond this.
FAR = 20.0
MIXED = "mixed"


@dataclass(frozen=True)
class InputSpec:
    """How the files of a cohort are read, and the scale of their values.

    Attributes:
        keys: Variable of .npz, .mat and HDF5 files by column (`image`, `tissue`, `axis`); empty where none was named.
        channels_first: Whether arrays hold `(C, H, W)`.
        kind: Type of the values: `uint8`, `uint16`, ..., `float`, or `mixed`; empty if unknown.
        high: Largest value of a sample, but for its highest hundredth, in the sample where that is largest; 0 if
            unknown.
        corrections: What was done to their spectra before they were stored, as configuration.
        channels: Theirs, before that; None: those of the cohort.
        own_tissue: Whether samples came with masks that the tissue rule does not give.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    channels_first: bool = False
    kind: str = ""
    high: float = 0.0
    corrections: Sequence[Mapping[str, Any]] = ()
    channels: Channels | None = None
    own_tissue: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any] | None) -> InputSpec:
        """The inverse of `to_dict`; of None, which earlier versions leave, nothing is known.

        Raises:
            ValueError: A value cannot be meant: the file may be a stranger's.
        """
        if plain is None:
            return cls()
        keys, high = dict(plain["keys"]), plain["high"]
        if not all(isinstance(word, str) for word in (*keys, *keys.values(), plain["kind"])):
            raise ValueError(f"input: keys {keys!r:.40} or kind {plain['kind']!r:.40}")
        if not isinstance(plain["channels_first"], bool) or isinstance(high, bool) or not math.isfinite(high):
            raise ValueError(f"input: channels_first {plain['channels_first']!r:.40} or high {high!r:.40}")
        corrections, channels = plain.get("corrections", ()), plain.get("channels")
        if not all(isinstance(node, dict) and "_target_" in node for node in corrections):
            raise ValueError(f"input: corrections {corrections!r:.40}")
        if (own := plain.get("own_tissue", False)) not in (True, False):
            raise ValueError(f"input: own_tissue {own!r:.40}")
        before = None if channels is None else Channels.from_dict(channels)
        return cls(keys, plain["channels_first"], plain["kind"], float(high), tuple(corrections), before, bool(own))


def without_mask(expected: InputSpec, rule: str) -> str:
    """What the user is told of an image without a tissue mask: a sentence, or nothing where the rule is as good."""
    if not expected.own_tissue:
        return ""
    return f"no tissue mask is given, and the rule '{rule}' does not find the tissue of the training samples; give one"


def seen_values(image: Image, tissue: Mask | None = None) -> tuple[str, float]:
    """Kind and high of one image's values, as `InputSpec` has them.

    Args:
        image: `(H, W, C)`; of one on disk only some rows are read.
        tissue: `(H, W)` bool, the pixels that count; None: all.
    """
    step = max(1, math.isqrt(math.prod(image.shape[:2]) // SEEN))
    some = np.asarray(image[::step, ::step])
    if tissue is not None and (kept := tissue[::step, ::step]).any():
        some = some[kept]
    kind = "float" if image.dtype.kind == "f" else image.dtype.name
    finite = np.abs(some.astype(np.float64))
    finite = finite[np.isfinite(finite)]
    high = float(np.percentile(finite, 99)) if finite.size else 0.0
    # A black picture as float is no picture in fractions of 1, which has fractions.
    if kind == "float" and 0 < high <= 1 and not (finite[:: max(1, finite.size // SEEN)] % 1).any():
        kind = "uint8"
    return kind, high


def merged(seen: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """Kind and high of a cohort, from those of its samples."""
    kinds, highs = zip(*seen, strict=True)
    return kinds[0] if len(set(kinds)) == 1 else MIXED, max(highs)


def rescaling(given: tuple[str, float], expected: InputSpec, where: str) -> tuple[float, str]:
    """What values are multiplied by to be on the scale of the training values, and what the user is told.

    8 bits and fractions of 1 are made the other one. Where no rule is certain, values of another type are refused, and
    values of the same type on a scale far from that of training are taken as they are, with a warning.

    Args:
        given: Kind and high of an image, see `seen_values`.
        expected: Of the segmenter.
        where: The image, for messages.

    Returns:
        The factor, and a sentence, which is empty if there is nothing to say.

    Raises:
        CompsegError: Another type, on another scale.
    """
    (kind, high), wanted = given, expected.high
    if not expected.kind or not kind or not wanted or not high:
        return 1.0, ""
    if expected.kind == "uint8" and kind == "float" and high <= 1 < wanted:
        return 255.0, "fractions of 1 multiplied by 255, because the segmenter was trained on 8 bits"
    if expected.kind == "float" and kind == "uint8" and wanted <= 1 < high:
        return 1 / 255, "8 bits divided by 255, because the segmenter was trained on fractions of 1"
    told = f"values up to {high:.3g} ({kind}), the segmenter was trained on values up to {wanted:.3g} ({expected.kind})"
    far = not 1 / FAR <= high / wanted <= FAR
    integers = {kind, expected.kind} <= {"uint8", "int8", "uint16", "int16", "uint32", "int32"}
    beyond = high > np.iinfo(expected.kind).max if expected.kind in ("uint8", "uint16") else False
    if MIXED != expected.kind != kind and (far or beyond or (integers and high < wanted / 4)):
        raise CompsegError(f"{where}: {told}; convert its values to the scale of the training images")
    return 1.0, f"{told}: is it the same scale?" if far else ""
