"""What `same_numbers.py` compares: the files that a step has left with two commits, to the last digit.

Every file is read as values by name; the names of the older commit are put into today's words. Numbers are numbers:
what differs in `INFORMATION` alone is told, and is no difference.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

Values = dict[str, Any]
Rename = Callable[[str], str]

# What a clock says.
LEFT_OUT = {"seconds", "started", "created", "date", "time"}
# Settings and wording: they may change while the numbers stay.
INFORMATION = {".yaml", ".md", ".json"}
# Of the machine and of Hydra: places, versions.
MACHINE = {"environment.json", "multirun.yaml"}
WEIGHTS = {".pt", ".pth", ".safetensors", ".bin"}
# Changed on purpose: the end of a name, how far the numbers may be apart, and why.
ON_PURPOSE = {
    "/x_auc": (1e-6, "one exact area under the ROC everywhere; this one was summed in float32"),
}
NUMBER = re.compile(r"-?\d*\.?\d+(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Compared:
    """One file of both commits.

    Attributes:
        file: Its path in the step's folder, in today's words.
        values: How many numbers and words were compared; of an array one for each element.
        difference: The first one, and both values; empty where all is equal.
        counts: Whether a difference is one of numbers.
    """

    file: str
    values: int
    difference: str
    counts: bool


def compare_folders(base: Path, now: Path, word: Rename, file: Rename) -> list[Compared]:
    """Compare all that two folders hold.

    Args:
        base: Left by the older commit.
        now: Left by the newer one.
        word: Puts a key, a column or a cell into today's words.
        file: Puts a path into today's words.
    """
    sides = [{path_name(path, folder, file): path for path in outputs(folder)} for folder in (base, now)]
    return [compare_file(name, *(side.get(name) for side in sides), word) for name in sorted(sides[0] | sides[1])]


def outputs(folder: Path) -> Iterator[Path]:
    """Files that are compared, and cohorts, which are folders."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in folders if name.endswith(".zarr"))
        folders[:] = sorted(name for name in folders if not name.endswith(".zarr") and name[0] != ".")
        yield from (Path(place, name) for name in files if name[0] != "." and reader_of(Path(place, name)))


def path_name(path: Path, folder: Path, file: Rename) -> str:
    """The path in the folder; weights are called weights, in whatever format they are."""
    inside = path.relative_to(folder)
    return file((inside.parent / "weights" if path.suffix in WEIGHTS else inside).as_posix())


def compare_file(name: str, base: Path | None, now: Path | None, word: Rename) -> Compared:
    counts = name.endswith("metrics.json") or Path(name).suffix not in INFORMATION
    if not base or not now:
        return Compared(name, 0, f"the file is missing {'at the base' if now else 'now'}", counts)
    values, others = ({word(key): value for key, value in read(path).items()} for path in (base, now))
    if name.endswith("weights") and values.keys() != others.keys():
        values, others = nameless(values), nameless(others)
    return Compared(name, sum(map(np.size, values.values())), first_difference(values, others, word), counts)


def first_difference(base: Values, now: Values, word: Rename) -> str:
    for key in base | now:
        if key not in base or key not in now:
            return f"{key}: only {'at the base' if key in base else 'now'}"
        if not same(base[key], now[key], word) and not on_purpose(key, base[key], now[key]):
            return f"{key}: {apart(base[key], now[key])}"
    return ""


def on_purpose(key: str, one: Any, other: Any) -> bool:
    """Whether a difference is one that was meant, and as small as it should be."""
    numbers = as_number(one), as_number(other)
    allowed = next((allowed for end, (allowed, _) in ON_PURPOSE.items() if key.endswith(end)), 0.0)
    return None not in numbers and abs(numbers[0] - numbers[1]) <= allowed


def same(one: Any, other: Any, word: Rename) -> bool:
    """Equal to the last digit; a NaN equals a NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    numbers = as_number(one), as_number(other)
    if None not in numbers:
        return numbers[0] == numbers[1] or all(map(math.isnan, numbers))
    return word(str(one)) == word(str(other))


def as_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def apart(one: Any, other: Any) -> str:
    """Both values; of arrays the first element that differs."""
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return f"{one} at the base, {other} now"
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{one.dtype} {one.shape} at the base, {other.dtype} {other.shape} now"
    unequal = np.argwhere((one != other) & ~((one != one) & (other != other)))
    if not len(unequal):
        return "equal but for the sign of a zero or the bits of a NaN"
    place = tuple(int(index) for index in unequal[0])
    return f"{one[place]} at the base, {other[place]} now, at {place}; {len(unequal)} of {one.size} differ"


def nameless(values: Values) -> Values:
    """Tensors by shape and content, for two commits that name them differently."""
    arrays = sorted(map(np.asarray, values.values()), key=lambda array: (array.shape, array.tobytes()))
    return {f"tensor {number} in order of shape": array for number, array in enumerate(arrays)}


def read(path: Path) -> Values:
    """All that a file holds, by name."""
    reader = reader_of(path)
    assert reader is not None
    return {key: value for key, value in reader(path).items() if not LEFT_OUT & set(re.split(r"[./ ]", key))}


def reader_of(path: Path) -> Callable[[Path], Values] | None:
    """What reads a file; None where it is not compared: pages, figures, logs, checkpoints (the weights are theirs)."""
    if path.suffix in WEIGHTS:
        return read_weights
    if path.name in MACHINE or (path.suffix == ".png" and "mask" not in path.name):
        return None
    return READERS.get(path.suffix)


def read_table(path: Path) -> Values:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"row {number} {column}": cell for number, row in enumerate(rows) for column, cell in row.items()}


def read_words(path: Path) -> Values:
    return dict(flat(yaml.safe_load(path.read_text())))


def read_json(path: Path) -> Values:
    return dict(flat(json.loads(path.read_text())))


def read_numbers(path: Path) -> Values:
    """The numbers of a text, without its wording."""
    return {f"number {place}": number for place, number in enumerate(NUMBER.findall(path.read_text()))}


def read_array(path: Path) -> Values:
    return {"array": np.load(path)}


def read_arrays(path: Path) -> Values:
    return dict(np.load(path))


def read_mask(path: Path) -> Values:
    return {"pixels": np.asarray(Image.open(path))}


def read_weights(path: Path) -> Values:
    """A state dict, which PyTorch or safetensors has written."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return {name: tensor.numpy() for name, tensor in load_file(path).items()}
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in flat(loaded)}


def read_cohort(path: Path) -> Values:
    """Arrays and attributes of a cohort, however they lie in its files."""
    import zarr

    group = zarr.open_group(path, mode="r")
    members = {"": group, **dict(group.members(max_depth=None))}
    arrays = {name: np.asarray(node[...]) for name, node in members.items() if isinstance(node, zarr.Array)}
    words = {f"{name} {key}": value for name, node in members.items() for key, value in flat(dict(node.attrs))}
    return {**dict(sorted(arrays.items())), **dict(sorted(words.items()))}


def flat(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists, by the path to them."""
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, list | tuple):
        items = list(enumerate(tree))
    else:
        yield name, tree
        return
    for key, value in items:
        yield from flat(value, f"{name}.{key}" if name else str(key))


READERS: dict[str, Callable[[Path], Values]] = {
    ".csv": read_table,
    ".json": read_json,
    ".yaml": read_words,
    ".md": read_numbers,
    ".npy": read_array,
    ".npz": read_arrays,
    ".png": read_mask,
    ".zarr": read_cohort,
}
