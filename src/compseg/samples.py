"""The types that every room shares: a sample, its channels, and what a source of samples can do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")

Image = NDArray[Any]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice]  # rows and columns of an image


@dataclass(frozen=True)
class SampleInfo:
    """What is known about a sample without reading its pixels.

    Attributes:
        name: Unique in the cohort, and fit for a file name; in a stranger's cohort it may be any text, so a path is
            made of it by `compseg.file_names` alone.
        label: 1 = disease, 0 = healthy.
        class_name: The pathologist's word, if any (`T`, `NAT`, ...).
        split: `train`, `val` or `test`; empty: assigned by the configuration.
        group: Slide, array or scanner; as `identifier` writes it, like `patient`.
        patient: Patient key; samples of one patient share a split. Empty: nobody is known.
        origin: The file it came from, for error messages.
    """

    name: str
    label: int
    class_name: str = ""
    split: str = ""
    group: str = ""
    patient: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        # Here, so that a manifest, a source of one's own and a stored cohort mean the same patient by the same word.
        for field in ("group", "patient"):
            object.__setattr__(self, field, identifier(getattr(self, field)))


# How tables write that they do not know: pandas, R, spreadsheets, people.
_UNKNOWN = ("", "nan", "na", "n/a", "#n/a", "<na>", "nat", "none", "null", "nil", "unknown", "-", "?")


def identifier(given: object) -> str:
    """A patient or group as text: empty where a table says that it is unknown, `3` for `3.0`, spaces made one."""
    text = " ".join(unicodedata.normalize("NFC", "" if given is None else str(given)).split())
    if text.casefold() in _UNKNOWN:
        return ""
    # What pandas makes of whole numbers in a column in which one is missing.
    return re.sub(r"^(\d+)\.0+$", r"\1", text)


def look_alike(name: str) -> tuple[str | int, ...]:
    """What is left of an identifier without case, punctuation and leading zeros: the same for `P1`, `p 1`, `P-01`."""
    parts = re.findall(r"[^\W\d_]+|\d+", unicodedata.normalize("NFKC", name).casefold())
    return tuple(int(part) if part.isdecimal() else part for part in parts)


@dataclass(frozen=True)
class SampleArrays:
    """A sample's pixels.

    Attributes:
        image: `(H, W, C)`, raw values as the instrument gave them.
        tissue: `(H, W)` bool, pixels that count; None lets the cohort's tissue rule decide.
        truth: `(H, W)` bool, an expert's mask of the disease region; None where there is none.
        thumbnail: `(h, w, 3)` uint8, a picture for people (H&E, photograph); None where there is none.
        remarks: What the user should know about how the files were understood, in words that samples share.
        own_tissue: Whether `tissue` is another than the cohort's rule gives of the raw image; None: `image` is raw, and
            shows it.
    """

    image: Image
    tissue: Mask | None = None
    truth: Mask | None = None
    thumbnail: NDArray[np.uint8] | None = None
    remarks: tuple[str, ...] = ()
    own_tissue: bool | None = None


@dataclass(frozen=True)
class Channels:
    """The channel axis of a cohort.

    Attributes:
        count: Number of channels C.
        values: Position of each channel (for example wavenumbers), in stored order; empty where the axis is not
            spectral.
        unit: Unit of `values`, for example `cm-1`.
        names: Channel names where the axis is not spectral, for example `("red", "green", "blue")`.
    """

    count: int
    values: tuple[float, ...] = ()
    unit: str = ""
    names: tuple[str, ...] = ()

    @property
    def spectral(self) -> bool:
        """Whether the channels have positions on a spectral axis."""
        return bool(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Channels:
        """The inverse of `to_dict`, also of values that were saved as JSON."""
        return cls(plain["count"], tuple(plain["values"]), plain["unit"], tuple(plain["names"]))


class Source(Protocol):
    """Where samples come from: image files, instruments, or a phantom.

    `infos` reads no pixels, so a cohort larger than memory can be prepared by calling `read` for one sample at a time.
    """

    def infos(self) -> Sequence[SampleInfo]:
        """Every sample, in a stable order."""
        ...

    def read(self, info: SampleInfo) -> SampleArrays:
        """The pixels of one sample."""
        ...

    def channels(self) -> Channels:
        """The channel axis, the same for all samples."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Plain values that describe the origin of the samples; cohorts with different provenance are different."""
        ...
