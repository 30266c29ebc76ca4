"""What is wrong with a cohort: one list of rules, read by `check`, at the end of `prepare` and before training.

To add a rule, write a function that yields problems, and a line in `RULES`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from compseg.cohort.layout import Array, node, partial_path
from compseg.cohort.locations import exists, location
from compseg.cohort.splits import look_alikes
from compseg.cohort.store import CHANGED, Cohort
from compseg.errors import CompsegError
from compseg.file_names import file_name, same_file
from compseg.log import console
from compseg.samples import SPLITS, SampleInfo, look_alike

PREPARE_AGAIN = "prepare the cohort again"
LEARNED = ("train", "val")  # splits that training reads


@dataclass(frozen=True)
class Problem:
    """One thing to fix.

    Attributes:
        sample: Name of the sample; empty where it is not a problem of one sample.
        file: The stored array, or the file that the sample came from.
        what: What was found, and what was expected.
        fix: What to do.
        split: Of the sample, or the one that is wrong as a whole; empty for all of them.
        fatal: Whether training refuses to start.
    """

    sample: str
    file: str
    what: str
    fix: str
    split: str = ""
    fatal: bool = False

    def __str__(self) -> str:
        """One line."""
        return f"{self.sample}: {self.what}; {self.fix}" if self.sample else f"{self.what}; {self.fix}"


class Summary(NamedTuple):
    """An array in a few numbers: SHA-256 of its values, how many are not finite and not zero, whether all are equal."""

    checksum: str
    not_finite: int
    nonzero: int
    constant: bool


@dataclass(frozen=True)
class Contents:
    """What was seen of a sample.

    Attributes:
        info: The sample.
        shape: Of its image.
        parts: Its arrays: `image`, `tissue` and perhaps others; without those that cannot be read.
        damage: What is wrong with the arrays that cannot be read, or were changed.
    """

    info: SampleInfo
    shape: tuple[int, ...]
    parts: Mapping[str, Summary]
    damage: Mapping[str, str]


class Rule(NamedTuple):
    """One thing that a cohort must not have.

    Attributes:
        name: In a few words.
        find: Yields a problem for each case of it, with the line that is said.
        fatal: Splits where training refuses it; elsewhere it is a problem, and training goes on.
    """

    name: str
    find: Callable[..., Iterable[Problem]]
    fatal: Sequence[str] = ()


def find_problems(path: str | Path, progress: bool = False) -> list[Problem]:
    """Read every array of a cohort and list what is wrong, by `RULES`; an unfinished preparation too.

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
    shown = track(cohort.infos, f"Checking {where}", console=console(), disable=not progress)
    return [*problems, *problems_in(cohort, (contents_of(cohort, info) for info in shown))]


def refuse_fatal(cohort: Cohort, judged: str = "val") -> None:
    """Refuse to train on a cohort with a problem that is fatal; reads the training and validation samples once.

    Args:
        cohort: To train on.
        judged: The split that the run is judged on after training, or `none`.

    Raises:
        CompsegError: Its first fatal problem.
    """
    contents = (contents_of(cohort, info) for info in cohort.infos if info.split in LEARNED)
    needed = [*LEARNED, *([judged] if judged in SPLITS else [])]
    fatal = [problem for problem in problems_in(cohort, contents, needed) if problem.fatal]
    if fatal:
        more = f" ({len(fatal) - 1} more; python -m compseg.check cohort={cohort.path} lists them)" * (len(fatal) > 1)
        raise CompsegError(f"{cohort.path}: {fatal[0]}{more}")


def problems_in(cohort: Cohort, contents: Iterable[Contents], needed: Sequence[str] = ()) -> Iterator[Problem]:
    """Every problem by `RULES`.

    Args:
        cohort: Its table.
        contents: Those of its samples, or of some of them; one is asked for at a time.
        needed: Splits that have to be there, besides those in use.
    """
    yield from _of(RULES["table"], cohort, needed)
    kept = []
    for seen in contents:
        yield from _of(RULES["sample"], seen)
        kept.append(seen)
    yield from _of(RULES["samples"], kept)


def _of(rules: Iterable[Rule], *seen: Any) -> Iterator[Problem]:
    for rule in rules:
        for problem in rule.find(*seen):
            yield replace(problem, fatal=problem.split in rule.fatal or bool(rule.fatal and not problem.split))


def contents_of(cohort: Cohort, info: SampleInfo) -> Contents:
    """Read all of a sample, a strip of rows at a time."""
    record, parts, damage = cohort.record(info.name), {}, {}
    for part, written in record.checksums.items():
        try:
            parts[part] = summary_of(cohort.strips(info.name, part))
        except CompsegError as error:
            # The cause, because the message around it advises to run this very check.
            damage[part] = f"cannot be read: {error.__cause__}"
        else:
            if parts[part].checksum != written:
                damage[part] = CHANGED
            else:
                cohort.is_sound(info.name, part)
    return Contents(info, record.shape, parts, damage)


def summary_of(strips: Iterable[Array]) -> Summary:
    """An array, given in strips of rows, in a few numbers."""
    checksum, not_finite, nonzero, first, constant = hashlib.sha256(), 0, 0, None, True
    for strip in strips:
        checksum.update(np.ascontiguousarray(strip).data)
        not_finite += strip.size - int(np.isfinite(strip).sum())
        nonzero += int(np.count_nonzero(strip))
        first = strip.flat[0] if first is None else first
        # A row first, which tells most arrays.
        constant = constant and bool((strip[0] == first).all()) and bool((strip == first).all())
    return Summary(checksum.hexdigest(), not_finite, nonzero, constant)


# --- of the table


def _odd_names(cohort: Cohort, needed: Sequence[str]) -> Iterator[Problem]:
    """Names that `prepare` would not write: they come from elsewhere, and may be made to lead out of a folder."""
    del needed
    for info in cohort.infos:
        if info.name != (fitting := file_name(info.name)):
            what = f"no name for a file; what is written for it is called {fitting}"
            yield Problem(info.name, "zarr.json", what, f"rename it, {PREPARE_AGAIN}", info.split)


def _repeated_names(cohort: Cohort, needed: Sequence[str]) -> Iterator[Problem]:
    del needed
    seen: dict[str, str] = {}
    for info in cohort.infos:
        if other := seen.get(key := same_file(info.name)):
            what = f"has the name of another sample, {other}"
            yield Problem(info.name, "zarr.json", what, f"rename one, {PREPARE_AGAIN}", info.split)
        seen[key] = info.name


def _patients_in_two_splits(cohort: Cohort, needed: Sequence[str]) -> Iterator[Problem]:
    del needed
    first: dict[str, SampleInfo] = {}
    for info in cohort.infos:
        if not info.patient:
            continue
        other = first.setdefault(info.patient, info)
        if other.split != info.split:
            what = f"patient {info.patient} is in {info.split} here and in {other.split} with sample {other.name}"
            yield Problem(info.name, info.origin, what, "give all samples of a patient one split", info.split)
    fix = "write one patient one way; tell two by more than case and signs"
    for one, other in look_alikes(cohort.infos):
        what = f"patient {other.patient} ({other.split}) looks like {one.patient} ({one.split}) of sample {one.name}"
        yield Problem(other.name, other.origin, what, fix, other.split)


def _groups_in_two_spellings(cohort: Cohort, needed: Sequence[str]) -> Iterator[Problem]:
    """To leave out one of them would train on the other."""
    del needed
    first = {info.group: info for info in reversed(cohort.infos) if info.group}
    spellings: dict[object, str] = {}
    for group, info in sorted(first.items()):
        if (other := spellings.setdefault(look_alike(group) or group, group)) != group:
            what = f"group {group} looks like {other} of sample {first[other].name}"
            yield Problem(info.name, info.origin, what, "write one group one way; tell two by more than case and signs")


def _empty_splits(cohort: Cohort, needed: Sequence[str]) -> Iterator[Problem]:
    """A cohort to train on needs train and val; another may only be there to judge on."""
    used = {info.split for info in cohort.infos}
    for split in sorted({*needed, *(LEARNED if "train" in used else ())} - used):
        unseen = ", or evaluation.split=val" * (split == "test")
        fix = f"give splits in the manifest or in splits.{split}{unseen}"
        yield Problem("", "zarr.json", f"no sample in split {split}", fix, split)


def _missing_labels(cohort: Cohort, needed: Sequence[str]) -> Iterator[Problem]:
    """Batches are half of each class, and most metrics tell one from the other."""
    del needed
    for split in SPLITS:
        labels = {info.label for info in cohort.split(split)}
        for label, word in ((0, "healthy"), (1, "disease")):
            if labels and label not in labels:
                fix = "change the splits in the manifest or in splits.*"
                yield Problem("", "zarr.json", f"split {split} has no {word} sample", fix, split)


# --- of a sample


def _damage(seen: Contents) -> Iterator[Problem]:
    for part, what in seen.damage.items():
        yield Problem(seen.info.name, node(seen.info.name, part), what, PREPARE_AGAIN, seen.info.split)


def _not_finite(seen: Contents) -> Iterator[Problem]:
    if (image := seen.parts.get("image")) and image.not_finite:
        what = f"{image.not_finite} values are NaN or infinite"
        yield _problem(seen, what, "set them to 0 and mask their pixels out of the tissue")


def _constant(seen: Contents) -> Iterator[Problem]:
    if not seen.damage and seen.parts["image"].constant:
        yield _problem(seen, "all values of its image are the same", "give another image, or drop the sample")


def _no_tissue(seen: Contents) -> Iterator[Problem]:
    if (tissue := seen.parts.get("tissue")) and not tissue.nonzero:
        yield _problem(seen, "its tissue mask is empty", "choose another tissue rule, give a mask, or drop the sample")


def _truth_against_label(seen: Contents) -> Iterator[Problem]:
    if (truth := seen.parts.get("truth")) is None or bool(truth.nonzero) == bool(seen.info.label):
        return
    if truth.nonzero:
        yield _problem(seen, "healthy, but its truth marks disease", "correct its label or its truth")
    else:
        yield _problem(seen, "disease, but its truth is empty", "correct its label, or drop its truth")


def _problem(seen: Contents, what: str, fix: str) -> Problem:
    return Problem(seen.info.name, seen.info.origin, what, fix, seen.info.split)


# --- of all samples


def _nothing_to_learn_from(contents: Sequence[Contents]) -> Iterator[Problem]:
    train = [seen.parts for seen in contents if seen.info.split == "train" and not seen.damage]
    if train and all(parts["image"].constant for parts in train):
        fix = "look at how the images were exported"
        yield Problem("", "samples", "every image of split train is of one value throughout", fix, "train")
    if train and not any(parts["tissue"].nonzero for parts in train):
        yield Problem("", "samples", "no sample of split train has tissue", "choose another tissue rule", "train")


def _identical_pixels(contents: Sequence[Contents]) -> Iterator[Problem]:
    same: dict[tuple[object, ...], list[SampleInfo]] = defaultdict(list)
    for seen in contents:
        if image := seen.parts.get("image"):
            # The shape belongs to it: a checksum of values is the same for 2 x 8 and 4 x 4 pixels of one value.
            same[seen.shape, image.checksum].append(seen.info)
    for infos in same.values():
        if len(infos) > 1:
            names = ", ".join(f"{info.name} ({info.split})" for info in infos)
            first = infos[0]
            yield Problem(first.name, first.origin, f"identical pixels: {names}", "keep one of them", first.split)


# By what a rule looks at.
RULES: dict[str, tuple[Rule, ...]] = {
    "table": (
        Rule("a name that no file can have", _odd_names),
        Rule("two samples of one name", _repeated_names, SPLITS),
        Rule("a patient in two splits", _patients_in_two_splits),
        Rule("a group in two spellings", _groups_in_two_spellings),
        Rule("an empty split", _empty_splits, SPLITS),
        Rule("a split without one class", _missing_labels, ("train",)),
    ),
    "sample": (
        Rule("damaged, changed or of another shape", _damage, LEARNED),
        Rule("values that are not finite", _not_finite, LEARNED),
        Rule("an image of one value", _constant),
        Rule("no tissue", _no_tissue),
        Rule("truth against the label", _truth_against_label),
    ),
    "samples": (
        Rule("nothing to learn from", _nothing_to_learn_from, LEARNED),
        Rule("identical pixels", _identical_pixels),
    ),
}
