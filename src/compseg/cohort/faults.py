"""What is wrong with a cohort, named by sample and file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from compseg.cohort.layout import Array, Record, checksum, node, partial_path
from compseg.cohort.places import Place, exists, place
from compseg.cohort.store import Cohort
from compseg.errors import CompsegError
from compseg.samples import SPLITS


@dataclass(frozen=True)
class Fault:
    """One thing to mend.

    Attributes:
        sample: Name of the sample; empty where it is not one sample's fault.
        file: The stored array, or the file that the sample came from.
        what: What was found, and what was expected.
        mend: What to do.
    """

    sample: str
    file: str
    what: str
    mend: str


def find_faults(path: str | Path, progress: bool = False) -> list[Fault]:
    """Read every array of a cohort and list what is wrong.

    Found are: an unfinished preparation, damaged or changed bytes, wrong shapes, values that are not finite, empty
    tissue, truth in a healthy sample, empty truth in a diseased one, samples with identical pixels or equal names, a
    patient in two splits, and splits without one of the labels.

    Args:
        path: The cohort: a folder or a URL.
        progress: Whether to show progress on stderr.

    Returns:
        The faults; empty if the cohort is sound.

    Raises:
        CompsegError: There is no cohort.
    """
    where = place(path)
    faults = list(_unfinished(where))
    if faults and not exists(where):
        return faults
    cohort = Cohort.open(where)
    faults += [*_repeated_names(cohort), *_parted_patients(cohort), *_missing_labels(cohort)]
    seen: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in track(cohort.records, f"Checking {where}", console=Console(stderr=True), disable=not progress):
        arrays, damage = _load(cohort, record)
        faults += damage
        faults += _content(cohort, record, arrays)
        if "image" in arrays:
            seen[record.shape, checksum(arrays["image"])].append(record)
    return faults + [_twins(records) for records in seen.values() if len(records) > 1]


def _unfinished(where: Place) -> Iterator[Fault]:
    if isinstance(where, Path) and (partial := partial_path(where)).exists():
        yield Fault(
            "", partial.name, "a preparation that did not finish", "run the same prepare again, or delete this folder"
        )


def _repeated_names(cohort: Cohort) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for info in cohort.infos:
        if info.name.lower() in seen:
            yield Fault(
                info.name,
                "zarr.json",
                f"has the name of another sample, {seen[info.name.lower()]}",
                "rename one, prepare anew",
            )
        seen[info.name.lower()] = info.name


def _parted_patients(cohort: Cohort) -> Iterator[Fault]:
    first: dict[str, Record] = {}
    for record in cohort.records:
        info = record.info
        if not info.patient:
            continue
        other = first.setdefault(info.patient, record).info
        if other.split != info.split:
            what = f"patient {info.patient} is in {info.split} here and in {other.split} with sample {other.name}"
            yield Fault(info.name, info.origin, what, "give all samples of a patient one split")


def _missing_labels(cohort: Cohort) -> Iterator[Fault]:
    """A cohort that trains needs both labels in train and val; whatever other split is in use needs both, too."""
    used = {info.split for info in cohort.infos}
    needed = used | {"train", "val"} if "train" in used else used
    for split in (name for name in SPLITS if name in needed):
        labels = {info.label for info in cohort.split(split)}
        for label, word in ((0, "healthy"), (1, "disease")):
            if label not in labels:
                yield Fault(
                    "",
                    "zarr.json",
                    f"split {split} has no {word} sample",
                    "change the splits in the manifest or in splits.*",
                )


def _load(cohort: Cohort, record: Record) -> tuple[dict[str, Array], list[Fault]]:
    """The sample's arrays that can be read, and a fault for each that cannot, or is not what was written."""
    arrays, faults = {}, []
    for part, written in record.checksums.items():
        name = record.info.name
        try:
            array = cohort.part(name, part)
        except CompsegError as error:
            faults.append(
                Fault(name, node(name, part), f"cannot be read: {error.__cause__}", "prepare the cohort anew")
            )
            continue
        if checksum(array) != written:
            faults.append(
                Fault(name, node(name, part), "differs from what was written (checksum)", "prepare the cohort anew")
            )
        arrays[part] = array
    return arrays, faults


def _content(cohort: Cohort, record: Record, arrays: dict[str, Array]) -> Iterator[Fault]:
    name, origin = record.info.name, record.info.origin
    image, tissue, truth = (arrays.get(part) for part in ("image", "tissue", "truth"))
    if image is not None:
        expected = (*record.shape[:2], cohort.channels.count)
        if image.shape != expected:
            yield Fault(
                name, node(name, "image"), f"image is {image.shape}, expected {expected}", "prepare the cohort anew"
            )
        if bad := int(image.size - np.isfinite(image).sum()):
            yield Fault(
                name,
                origin,
                f"{bad} values are NaN or infinite",
                "set them to 0 and mask their pixels out of the tissue",
            )
    for part, mask in (("tissue", tissue), ("truth", truth)):
        if mask is not None and mask.shape != record.shape[:2]:
            yield Fault(
                name,
                node(name, part),
                f"{part} is {mask.shape}, the image {record.shape[:2]}",
                "prepare the cohort anew",
            )
    if tissue is not None and not tissue.any():
        yield Fault(
            name, origin, "its tissue mask is empty", "choose another tissue rule, give a mask, or drop the sample"
        )
    if truth is not None and record.info.label == 0 and truth.any():
        yield Fault(
            name, origin, f"healthy, but its truth marks {int(truth.sum())} pixels", "mend its label or its truth"
        )
    if truth is not None and record.info.label == 1 and not truth.any():
        yield Fault(name, origin, "disease, but its truth is empty", "mend its label, or leave its truth out")


def _twins(records: list[Record]) -> Fault:
    infos = [record.info for record in records]
    names = ", ".join(f"{info.name} ({info.split})" for info in infos)
    return Fault(infos[0].name, infos[0].origin, f"identical pixels: {names}", "keep one of them")
