"""What a prediction writes, decided before the first file: names that share no file, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from compseg.cohort import is_url
from compseg.errors import reading, require
from compseg.file_names import file_name, file_names
from compseg.files import atomic_json, read_json, remove_partials
from compseg.inference.images import NewImage
from compseg.inference.segmenter import Segmenter
from compseg.run_folder import refuse_other_kind

MAPS, TABLE, RECORD = "maps", "areas.csv", "prediction.json"
FIX = "give another out="
MAP_ENDINGS = (".npy", ".png", "_mask.png")  # activation, overlay, mask
SPREAD = "_spread.npy"  # if it was asked for
ENDINGS = (*MAP_ENDINGS, SPREAD)  # of all files that there may be of a map


def reserve(out: Path, segmenter: Segmenter, images: Sequence[NewImage], overwrite: bool = False) -> dict[str, str]:
    """Take a folder for a prediction, before anything is written into it.

    `prediction.json` tells whose the folder is: segmenter, threshold, and of each image where it came from and what its
    files are called. The same prediction may be run again, also with more images: then the folder is complete in the
    end. Any other is refused.

    Args:
        out: The folder, made if absent.
        segmenter: With a threshold.
        images: What will be mapped.
        overwrite: Whether to delete what another prediction has left.

    Returns:
        What the files of each image are called, by its name.

    Raises:
        CompsegError: The folder holds another prediction, or maps of something else; or two images have one name.
    """
    files = file_names([image.name for image in images], ENDINGS)
    assert segmenter.threshold is not None
    mine = {
        "segmenter": fingerprint(segmenter),
        "threshold": segmenter.threshold.value,
        "images": {image.name: {"path": _place(image), "file": files[image.name]} for image in images},
    }
    refuse_other_kind(out, "a prediction", "out")
    before = read_record(out)
    if before and (other := _other_than(mine, before, out)):
        require(
            overwrite,
            f"{out}: holds the maps of another prediction ({other}), which would be mixed with these; "
            "give another out=, or overwrite=true to delete them",
        )
        for path in _written(before["images"], out):
            path.unlink()
        (out / TABLE).unlink(missing_ok=True)
    remove_partials(out)
    atomic_json(out / RECORD, mine)
    return files


@contextmanager
def released_if_empty(out: Path) -> Iterator[None]:
    """Give the folder back if the prediction fails before its first map."""
    try:
        yield
    finally:
        if not (out / TABLE).exists():
            (out / RECORD).unlink(missing_ok=True)
            with suppress(OSError):  # it holds something
                out.rmdir()


def fingerprint(segmenter: Segmenter) -> str:
    """SHA-256 of all that a segmenter's maps depend on."""
    digest = hashlib.sha256()
    for one in segmenter.parts():
        nodes = [one.model_node, one.preprocess_node, one.pseudo_labels_node]
        digest.update(json.dumps([*nodes, one.tissue_rule, one.dtype], sort_keys=True, default=str).encode())
        for part in filter(None, [one.model, one.preprocess, one.pseudo_labels]):
            for name, tensor in part.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _place(image: NewImage) -> str:
    return str(image.path) if is_url(image.path) else str(Path(image.path).resolve())


def read_record(out: Path) -> dict[str, Any] | None:
    """The record of the prediction that a folder holds; None where it holds none.

    Raises:
        CompsegError: It is damaged, or missing beside maps.
    """
    path = out / RECORD
    if not path.is_file():
        maps = out / MAPS
        require(
            not (out / TABLE).exists() and not (maps.is_dir() and any(maps.iterdir())),
            f"{out}: holds maps/ or {TABLE}, but no {RECORD} that says whose; {FIX}",
        )
        return None
    with reading(path, FIX):
        record = read_json(path, dict, FIX)
        # Of the file names no more is believed than that they are some: a folder may be a stranger's.
        images = {name: {**image, "file": file_name(image["file"])} for name, image in record["images"].items()}
    return {**record, "images": images}


def _other_than(mine: Mapping[str, Any], before: Mapping[str, Any], out: Path) -> str:
    """What tells an earlier prediction from this one; empty where it is the same so far."""
    another = next((key for key in ("segmenter", "threshold") if mine[key] != before.get(key)), "")
    left = {name: image for name, image in before["images"].items() if another or mine["images"].get(name) != image}
    # What it never came to is no obstacle, for example an image that could not be read and is now left out.
    if not _written(left, out):
        return ""
    return f"by another {another}" if another else f"of {next(iter(left.values())).get('path')}"


def _written(images: Mapping[str, Mapping[str, str]], out: Path) -> list[Path]:
    """The files that are there of some images."""
    paths = [out / MAPS / f"{image['file']}{ending}" for image in images.values() for ending in ENDINGS]
    return [path for path in paths if path.is_file()]
