"""What is wrong with a cohort, by sample and file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from compseg.cohort.layout import Array, Record, checksum, node, partial_path
from compseg.cohort.locations import exists, location
from compseg.cohort.splits import look_alikes
from compseg.cohort.store import Cohort
from compseg.errors import CompsegError
from compseg.file_names import file_name, same_file
from compseg.samples import SPLITS

PREPARE_AGAIN = "prepare the cohort again"


@dataclass(frozen=True)
class Problem:
    """One thing to fix.

    Attributes:
        sample: Name of the sample; empty where it is not a problem of one sample.
        file: The stored array, or the file that the sample came from.
        what: What was found, and what was expected.
        fix: What to do.
    """

    sample: str
    file: str
    what: str
    fix: str


def find_problems(path: str | Path, progress: bool = False) -> list[Problem]:
    """Read every array of a cohort and list what is wrong.

    It finds an unfinished preparation, damaged or changed bytes, wrong shapes, values that are not finite, empty
    tissue, truth in a healthy sample, empty truth in a diseased one, samples with identical pixels, names that are
    equal or no file names, a patient in two splits, also where it is written in two ways, and splits without one of the
    labels.

    Args:
        path: The cohort: a folder or a URL.
        progress: Whether to show progress on stderr.

    Returns:
        The problems; empty if the cohort is sound.

    Raises:
        CompsegError: There is no cohort.
    """
    where = location(path)
    problems = []
    if isinstance(where, Path) and (partial := partial_path(where)).exists():
        fix = "run the same prepare again, or delete this folder"
        problems.append(Problem("", partial.name, "a preparation that did not finish", fix))
        if not exists(where):
            return problems
    cohort = Cohort.open(where)
    problems += [*_names(cohort), *_patients_in_two_splits(cohort), *_missing_labels(cohort)]
    # Checksums stay, arrays go: one sample is in memory at a time.
    same_pixels: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in track(cohort.records, f"Checking {where}", console=Console(stderr=True), disable=not progress):
        arrays, damage = _read(cohort, record)
        problems += [*damage, *_content(cohort, record, arrays)]
        if "image" in arrays:
            # The shape belongs to it: a checksum of values is the same for 2 x 8 and 4 x 4 pixels of one value.
            same_pixels[record.shape, checksum(arrays["image"])].append(record)
    for records in same_pixels.values():
        if len(records) > 1:
            names = ", ".join(f"{record.info.name} ({record.info.split})" for record in records)
            first = records[0].info
            problems.append(Problem(first.name, first.origin, f"identical pixels: {names}", "keep one of them"))
    return problems


def _names(cohort: Cohort) -> Iterator[Problem]:
    """Names that `prepare` would not write: they come from elsewhere, and may be made to lead out of a folder."""
    seen: dict[str, str] = {}
    for name in (info.name for info in cohort.infos):
        if name != (fitting := file_name(name)):
            what = f"no name for a file; what is written for it is called {fitting}"
            yield Problem(name, "zarr.json", what, f"rename it, {PREPARE_AGAIN}")
        if other := seen.get(key := same_file(name)):
            what = f"has the name of another sample, {other}"
            yield Problem(name, "zarr.json", what, f"rename one, {PREPARE_AGAIN}")
        seen[key] = name


def _patients_in_two_splits(cohort: Cohort) -> Iterator[Problem]:
    first: dict[str, Record] = {}
    for record in cohort.records:
        info = record.info
        if not info.patient:
            continue
        other = first.setdefault(info.patient, record).info
        if other.split != info.split:
            what = f"patient {info.patient} is in {info.split} here and in {other.split} with sample {other.name}"
            yield Problem(info.name, info.origin, what, "give all samples of a patient one split")
    for one, other in look_alikes(cohort.infos):
        what = f"patient {other.patient} ({other.split}) looks like {one.patient} ({one.split}) of sample {one.name}"
        yield Problem(other.name, other.origin, what, "write one patient one way; tell two by more than case and signs")


def _missing_labels(cohort: Cohort) -> Iterator[Problem]:
    """A cohort to train on needs both labels in train and val; any other split in use needs both, too."""
    used = {info.split for info in cohort.infos}
    # Batches are half of each class and the threshold is fitted on val; but a cohort may only be there to judge on.
    needed = used | {"train", "val"} if "train" in used else used
    for split in (name for name in SPLITS if name in needed):
        labels = {info.label for info in cohort.split(split)}
        for label, word in ((0, "healthy"), (1, "disease")):
            if label not in labels:
                fix = "change the splits in the manifest or in splits.*"
                yield Problem("", "zarr.json", f"split {split} has no {word} sample", fix)


def _read(cohort: Cohort, record: Record) -> tuple[dict[str, Array], list[Problem]]:
    """The sample's arrays that can be read, and a problem for each that is unreadable or was changed."""
    name, arrays, damage = record.info.name, {}, []
    for part, written in record.checksums.items():
        what = ""
        try:
            arrays[part] = cohort.part(name, part)
        except CompsegError as error:
            # The cause, because the message around it advises to run this very check.
            what = f"cannot be read: {error.__cause__}"
        else:
            if checksum(arrays[part]) != written:
                what = "differs from what was written (checksum)"
        if what:
            damage.append(Problem(name, node(name, part), what, PREPARE_AGAIN))
    return arrays, damage


def _content(cohort: Cohort, record: Record, arrays: dict[str, Array]) -> Iterator[Problem]:
    name, origin, label, size = record.info.name, record.info.origin, record.info.label, record.shape[:2]
    image, tissue, truth = (arrays.get(part) for part in ("image", "tissue", "truth"))
    if image is not None:
        expected = (*size, cohort.channels.count)
        if image.shape != expected:
            yield Problem(name, node(name, "image"), f"image is {image.shape}, expected {expected}", PREPARE_AGAIN)
        if bad := int(image.size - np.isfinite(image).sum()):
            fix = "set them to 0 and mask their pixels out of the tissue"
            yield Problem(name, origin, f"{bad} values are NaN or infinite", fix)
    for part, mask in (("tissue", tissue), ("truth", truth)):
        if mask is not None and mask.shape != size:
            yield Problem(name, node(name, part), f"{part} is {mask.shape}, the image {size}", PREPARE_AGAIN)
    if tissue is not None and not tissue.any():
        fix = "choose another tissue rule, give a mask, or drop the sample"
        yield Problem(name, origin, "its tissue mask is empty", fix)
    if truth is not None and label == 0 and truth.any():
        what = f"healthy, but its truth marks {int(truth.sum())} pixels"
        yield Problem(name, origin, what, "correct its label or its truth")
    if truth is not None and label == 1 and not truth.any():
        yield Problem(name, origin, "disease, but its truth is empty", "correct its label, or drop its truth")
