"""What the attributes of a cohort must hold before anything relies on them: the folder may be a stranger's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from compseg.cohort.layout import DTYPES
from compseg.inputs import InputSpec
from compseg.preprocessing.tissue import RULES
from compseg.samples import SPLITS

MAX_CHANNELS = 65_536
MAX_SIDE = 10_000_000  # pixels; a whole slide has a tenth
_NUMBER = int | float
_TYPES: dict[str, Any] = {
    "schema": int,
    "channels": dict,
    "tissue_rule": str,
    "classes": dict,
    "pixel_size": _NUMBER | None,
    "pixel_unit": str,
    "provenance": dict,
    "dtype": str,
    "samples": list,
}
_TYPES_OF_CHANNELS: dict[str, Any] = {"count": int, "values": list, "unit": str, "names": list}
_TYPES_OF_SAMPLE: dict[str, Any] = {
    "name": str,
    "label": int,
    "class_name": str,
    "split": str,
    "group": str,
    "patient": str,
    "origin": str,
    "shape": list,
    "checksums": dict,
}


def check_attributes(plain: Mapping[str, Any]) -> None:
    """Compare types, lengths and ranges of attributes with what the rest relies on.

    Args:
        plain: The attribute `compseg` of the root group.

    Raises:
        ValueError: A value is missing or cannot be meant.
    """
    _of_types(plain, _TYPES, "")
    _in(plain["tissue_rule"], RULES, "tissue_rule")
    _in(plain["dtype"], DTYPES, "dtype")
    _check_channels(plain["channels"])
    InputSpec.from_dict(input_of(plain))
    _require(plain["pixel_size"] is None or plain["pixel_size"] > 0, "pixel_size", plain["pixel_size"])
    _require(all(_is(label, int) for label in plain["classes"].values()), "classes", plain["classes"])
    _require(bool(plain["samples"]), "samples", "none")
    for number, row in enumerate(plain["samples"]):
        _check_sample(row, f"samples[{number}]", plain["channels"]["count"])


def input_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """How the files of a cohort were read and what their values were like, as far as its attributes say."""
    kind, high = plain.get("values", ("", 0.0))
    made = plain["provenance"]
    keys, first = made.get("keys", {}), made.get("channels_first", False)
    before = {"corrections": made["corrections"], "channels": made["given"]} if "corrections" in made else {}
    own = plain.get("own_tissue", False)
    return {"keys": keys, "channels_first": first, "kind": kind, "high": high, "own_tissue": own, **before}


def _check_channels(plain: Mapping[str, Any]) -> None:
    _of_types(plain, _TYPES_OF_CHANNELS, "channels.")
    count = plain["count"]
    _require(1 <= count <= MAX_CHANNELS, "channels.count", count)
    for key, kind in (("values", _NUMBER), ("names", str)):
        fits = len(plain[key]) in (0, count) and all(_is(value, kind) for value in plain[key])
        _require(fits, f"channels.{key}", plain[key])
    _require(all(map(math.isfinite, plain["values"])), "channels.values", plain["values"])


def _check_sample(row: Any, where: str, channels: int) -> None:
    _require(isinstance(row, dict), where, row)
    _of_types(row, _TYPES_OF_SAMPLE, f"{where}.")
    _require(bool(row["name"]), f"{where}.name", row["name"])
    _in(row["label"], (0, 1), f"{where}.label")
    _in(row["split"], SPLITS, f"{where}.split")
    shape, sums = row["shape"], row["checksums"]
    sound = len(shape) == 3 and all(_is(side, int) and 1 <= side <= MAX_SIDE for side in shape) and shape[2] == channels
    _require(sound, f"{where}.shape", shape)
    complete = {"image", "tissue"} <= set(sums) and all(_is(value, str) for value in sums.values())
    _require(complete, f"{where}.checksums", sums)


def _of_types(plain: Mapping[str, Any], types: Mapping[str, Any], where: str) -> None:
    for key, kind in types.items():
        _require(key in plain and _is(plain[key], kind), f"{where}{key}", plain.get(key, "nothing"))


def _is(value: Any, kind: Any) -> bool:
    # To Python true is a number as well.
    return isinstance(value, kind) and not isinstance(value, bool)


def _in(value: Any, known: tuple[Any, ...], where: str) -> None:
    _require(value in known, where, value)


def _require(holds: bool, where: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{where}: {value!r:.40} cannot be meant")
