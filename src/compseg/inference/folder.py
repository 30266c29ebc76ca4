"""The folder of a segmenter, which may be a stranger's: its description and its weights, in every format so far.

`segmenter.json` holds plain values and the checksum of `weights.safetensors`, which holds the tensors. Both are checked
before they are used, and their sizes before memory is taken. Needs torch, numpy and safetensors alone.

Formats: 1 knew no pseudo-labels; 2 kept its weights as `weights.pt`; 3 is written today. All are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from compseg.errors import CompsegError, cause, is_refusal
from compseg.files import atomic_bytes
from compseg.inference.building import without_fetching
from compseg.inference.threshold import Threshold
from compseg.inputs import InputSpec
from compseg.preprocessing.tissue import RULES
from compseg.samples import Channels

T = TypeVar("T")
FORMAT = 3
ENSEMBLE = "ensemble.json"  # in place of a description, where several segmenters are one
DESCRIPTION, WEIGHTS, OLD_WEIGHTS = "segmenter.json", "weights.safetensors", "weights.pt"
PARTS = ("model", "preprocess", "pseudo_labels")
MAX_DESCRIPTION = 2**24  # bytes; a thousand channels with their wavenumbers take 30 kB
MAX_PICKLE = 2**24  # bytes of names and shapes beside the tensors; the paper's U-Net has 12 kB
MAX_CHANNELS = 65_536
DTYPES = ("float16", "float32", "float64")

# What formats 1 and 2 call by another name. The longest name that fits counts.
MOVED_KEYS = {"teacher": "pseudo_labels"}
MOVED_TARGETS = {
    "compseg.spectra": "compseg.preprocessing",
    "compseg.spectra.corrections": "compseg.preprocessing",
    "compseg.maps": "compseg.inference",
    "compseg.models.floors": "compseg.models.baselines",
    "compseg.models.padding": "compseg.models.geometry",
    "compseg.models.spectral_spatial": "compseg.models.spectral",
    "compseg.models.spectral_stem": "compseg.models.spectral",
    "compseg.comparative.FisherTeacher": "compseg.comparative.FisherPseudoLabels",
    "compseg.comparative.teacher.FisherTeacher": "compseg.comparative.FisherPseudoLabels",
}
MOVED_ARGUMENTS = {
    "compseg.comparative.FisherPseudoLabels": {"teaches": "supervises", "reach": "neighbourhood"},
}


@dataclass(frozen=True)
class Weights:
    """The weights of a folder, not yet in memory.

    Attributes:
        path: Their file.
        size: Its bytes.
        shapes: Names and shapes of each part's tensors.
        read: Reads each part's tensors.
    """

    path: Path
    size: int
    shapes: Mapping[str, dict[str, tuple[int, ...]]]
    read: Callable[[], Mapping[str, dict[str, Tensor]]]


def find_folder(path: Path) -> Path:
    """The folder of a segmenter: the path itself, or the one within a run folder.

    Raises:
        CompsegError: There is none.
    """
    for folder in (path, path / "segmenter"):
        if (folder / DESCRIPTION).is_file():
            return folder
    raise CompsegError(
        f"{path}: holds no segmenter ({DESCRIPTION} is missing); give a run folder that training has finished"
    )


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a segmenter, in the words of the newest format.

    Returns:
        What `segmenter.json` holds, its plain values checked; `threshold`, `channels` and `input` as objects.

    Raises:
        CompsegError: It is of a newer format, or no description.
    """
    path = folder / DESCRIPTION
    # By size before it is read: a stranger's file could take up all memory.
    if path.stat().st_size > MAX_DESCRIPTION:
        raise CompsegError(
            f"{path}: {path.stat().st_size} bytes, expected at most {MAX_DESCRIPTION}; get the segmenter again"
        )
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        _refuse_changed(plain)
        if (number := _typed(plain, "format", int)) > FORMAT:
            raise CompsegError(f"{path}: format {number} is newer than this compseg reads ({FORMAT}); update compseg")
        return _checked(plain if number >= FORMAT else _moved(plain))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CompsegError(
            f"{path}: not a segmenter's description ({error!r:.200}); extract it again from the run"
        ) from error


def _refuse_changed(plain: Mapping[str, Any]) -> None:
    if "sha256" in plain and plain["sha256"] != checksum_of(plain):
        raise ValueError("its checksum is not that of its values")


def checksum_of(description: Mapping[str, Any]) -> str:
    """SHA-256 of the values of a description but for `sha256`, which holds it; earlier versions wrote none."""
    values = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _checked(plain: dict[str, Any]) -> dict[str, Any]:
    """A description whose values have the types and ranges that the rest relies on; else an error in a few words."""
    for key in ("model", "preprocess", "channels", "provenance"):
        _typed(plain, key, dict)
    for key in ("pseudo_labels", "threshold"):
        _typed(plain, key, dict | None)
    if plain["format"] >= 3:
        _typed(plain["weights"], "sha256", str)
    if plain["tissue_rule"] not in RULES or plain["dtype"] not in DTYPES:
        raise ValueError(f"tissue_rule {plain['tissue_rule']!r:.40} or dtype {plain['dtype']!r:.40} is unknown")
    channels = plain["channels"]
    count, _ = _typed(channels, "count", int), _typed(channels, "unit", str)
    if not 1 <= count <= MAX_CHANNELS:
        raise ValueError(f"{count} channels, expected 1 to {MAX_CHANNELS}")
    for key, kind in (("values", int | float), ("names", str)):
        if len(_typed(channels, key, list)) not in (0, count) or not all(isinstance(v, kind) for v in channels[key]):
            raise ValueError(f"channels.{key} does not fit {count} channels")
    threshold = None if plain["threshold"] is None else Threshold.from_dict(plain["threshold"])
    if threshold is not None and not 0 <= threshold.value <= 1:
        raise ValueError(f"threshold {threshold.value}, expected one in [0, 1]")
    found = InputSpec.from_dict(plain.get("input"))  # earlier versions kept none
    return plain | {"threshold": threshold, "channels": Channels.from_dict(channels), "input": found}


def _typed(plain: Any, key: str, kinds: Any) -> Any:
    value = plain[key]
    # To Python true is an integer as well.
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
        raise TypeError(f"{key}: {value!r:.40}")
    return value


def _moved(value: Any) -> Any:
    """A description, or a part of it, of format 1 or 2 in the words of today."""
    if isinstance(value, list):
        return [_moved(item) for item in value]
    if not isinstance(value, dict):
        return value
    # Inner nodes first; the outermost one, which has a format, is the description itself.
    moved = {key: _moved(item) for key, item in value.items()}
    if "format" in moved:
        return {"pseudo_labels": None} | {MOVED_KEYS.get(key, key): item for key, item in moved.items()}
    if isinstance(target := moved.get("_target_"), str):
        fitting = [old for old in MOVED_TARGETS if f"{target}.".startswith(f"{old}.")]
        if fitting:
            target = MOVED_TARGETS[longest := max(fitting, key=len)] + target.removeprefix(longest)
        names = MOVED_ARGUMENTS.get(target, {})
        # These formats kept what training had fetched, though the weights are in the folder.
        moved = without_fetching({names.get(key, key): item for key, item in (moved | {"_target_": target}).items()})
    return moved


def write_weights(folder: Path, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Write `weights.safetensors`, and return what the description says of it."""
    # Copies: the format refuses tensors that share memory, as tied weights do.
    tensors = {
        f"{part}.{name}": value.detach().cpu().contiguous().clone()
        for part, state in states.items()
        for name, value in state.items()
    }
    # In memory first, so that file and checksum come from the same bytes.
    content = safetensors.torch.save(tensors)
    atomic_bytes(folder / WEIGHTS, content)
    return {"sha256": hashlib.sha256(content).hexdigest()}


def open_weights(folder: Path, description: Mapping[str, Any]) -> Weights:
    """The weights of a folder: their names and shapes, checked against the file, and how to read them.

    Raises:
        CompsegError: The file is missing or damaged, or belongs to another description.
    """
    path = folder / (WEIGHTS if description["format"] >= 3 else OLD_WEIGHTS)
    if not path.is_file():
        raise CompsegError(f"{path}: missing; copy the whole segmenter folder, weights included")
    with _damage(path):
        return _open_safetensors(path, description) if path.name == WEIGHTS else _open_pickle(path)


def _open_safetensors(path: Path, description: Mapping[str, Any]) -> Weights:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != description["weights"]["sha256"]:
        raise ValueError(f"its checksum is not the one in {DESCRIPTION}")
    # The format knows tensors alone, so reading it runs nothing.
    # Opening compares the shapes that the header declares with the size of the file.
    with safetensors.safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 not a dict
    return Weights(path, path.stat().st_size, _by_part(shapes), lambda: _by_part(safetensors.torch.load_file(path)))


def _by_part(values: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """`{"model.output.bias": ...}` to `{"model": {"output.bias": ...}, ...}`."""
    parted: dict[str, dict[str, T]] = {part: {} for part in PARTS}
    for name, value in values.items():
        part, _, rest = name.partition(".")
        parted[part][rest] = value
    return parted


def _open_pickle(path: Path) -> Weights:
    """`weights.pt` of formats 1 and 2. A pickle that torch restricts to tensors, of which a stranger's may still lie.

    Compressed entries, and shapes beyond what is stored, would take any amount of memory.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    pickled = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if not stored or pickled > MAX_PICKLE or sum(entry.file_size for entry in entries) > size:
        raise ValueError("it holds more than its size")

    def read(place: str) -> dict[str, dict[str, Tensor]]:
        states = torch.load(path, map_location=place, weights_only=True)
        return {MOVED_KEYS.get(part, part): dict(state) for part, state in states.items()}

    # A pickle may give a small storage a huge shape, for which torch would take the memory.
    without_memory = read("meta")
    tensors = [value for state in without_memory.values() for value in state.values()]
    if sum(math.prod(value.shape) * value.element_size() for value in tensors) > size:
        raise ValueError("its tensors are larger than the file")
    shapes = {
        part: {name: tuple(value.shape) for name, value in state.items()} for part, state in without_memory.items()
    }
    return Weights(path, size, shapes, lambda: read("cpu"))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except CompsegError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file; all mean the same
        if is_refusal(error):
            raise
        raise CompsegError(
            f"{path}: weights cannot be read, damaged or of another segmenter ({cause(error)}); copy the whole folder "
            "again"
        ) from error
