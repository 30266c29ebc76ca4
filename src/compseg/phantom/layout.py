"""Which spots a cohort has: arrays, classes, splits and patients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from numpy.random import Generator, SeedSequence, default_rng

from compseg.errors import CompsegError, closest
from compseg.phantom.optics import ArrayEffect
from compseg.samples import SPLITS, SampleInfo

CONDITIONS = {"healthy": 0, "disease": 1}

# What a random stream is for; each has an independent sequence per item.
LAYOUT, PATIENT, ANATOMY, TUMOUR, OPTICS, STAIN = range(6)


def stream(seed: int, purpose: int, array: int, item: int = 0) -> Generator:
    """The random numbers of one item of one array, independent of the numbers taken from other streams."""
    return default_rng(SeedSequence(seed, spawn_key=(purpose, array, item)))


@dataclass(frozen=True)
class ArrayPlan:
    """One tissue microarray.

    Attributes:
        holds: How many spots of each class (`T`, `N`, ...) are on the array.
        takes: How many of them each split takes, `{"train": {"healthy": 15, "disease": 15}}`; the rest stay unused.
        effect: What all its spots share.
    """

    holds: Mapping[str, int]
    takes: Mapping[str, Mapping[str, int]]
    effect: ArrayEffect = field(default_factory=ArrayEffect)

    @classmethod
    def parse(cls, name: str, plain: Mapping[str, Any]) -> ArrayPlan:
        """Read it from configuration.

        Raises:
            CompsegError: On an unknown key, split or condition.
        """
        where = f"arrays.{name}"
        check_keys(where, plain, ("holds", "takes", "effect"))
        if missing := {"holds", "takes"} - set(plain):
            raise CompsegError(f"phantom, {where}: expected the keys holds and takes, got no {min(missing)}; add it")
        check_keys(f"{where}.takes", plain["takes"], SPLITS)
        for split, counts in plain["takes"].items():
            check_keys(f"{where}.takes.{split}", counts, CONDITIONS)
        effect = dict(plain.get("effect", {}))
        check_keys(f"{where}.effect", effect, [f.name for f in fields(ArrayEffect)])
        return cls(dict(plain["holds"]), {split: dict(n) for split, n in plain["takes"].items()}, ArrayEffect(**effect))


@dataclass(frozen=True)
class Spot:
    """One sample to make.

    Attributes:
        info: What the cohort is told.
        array: Number of the array.
        index: Number of the spot on it.
        patient: Number of the patient on it.
        cue: -1 or 1, the sign of a shortcut. It follows the label in train and val and is independent of it in test.
    """

    info: SampleInfo
    array: int
    index: int
    patient: int
    cue: int


def check_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown keys.

    Raises:
        CompsegError: Names the first unknown key and the nearest known one.
    """
    allowed = list(known)
    for key in given:
        if key not in allowed:
            raise CompsegError(
                f"phantom, {where}: expected one of {', '.join(allowed)}, got {key}; {closest(key, allowed, 'known')}"
            )


def plan_spots(
    arrays: Mapping[str, ArrayPlan], class_labels: Mapping[str, int | None], spots_per_patient: int, seed: int
) -> list[Spot]:
    """Every sample of the cohort, array by array, in an order that is independent of the label.

    Args:
        arrays: By name.
        class_labels: 1, 0, or None for classes that are left out.
        spots_per_patient: At most so many samples come from one patient, all of one array, split and label.
        seed: Of the cohort.

    Raises:
        CompsegError: A split takes more than the array holds, or a class has no label.
    """
    spots = []
    for number, (name, plan) in enumerate(arrays.items()):
        check_keys(f"arrays.{name}.holds", plan.holds, class_labels)
        rng = stream(seed, LAYOUT, number)
        rows = list(_deal(rng, name, plan, class_labels, spots_per_patient))
        for index, row in enumerate(rng.permutation(len(rows))):
            word, label, split, patient, cue = rows[row]
            origin = f"phantom seed {seed}, array {number}, spot {index}"
            info = SampleInfo(f"{name}_{index + 1:03d}", label, word, split, name, f"{name}_p{patient + 1:03d}", origin)
            spots.append(Spot(info, number, index, patient, cue))
    return spots


def _deal(
    rng: Generator, name: str, plan: ArrayPlan, class_labels: Mapping[str, int | None], spots_per_patient: int
) -> Iterator[tuple[str, int, str, int, int]]:
    """Deal an array's spots to splits and patients: yields class, label, split, patient and cue."""
    patient = 0
    for condition, label in CONDITIONS.items():
        words = [word for word, count in plan.holds.items() if class_labels[word] == label for _ in range(count)]
        wanted = sum(counts.get(condition, 0) for counts in plan.takes.values())
        if wanted > len(words):
            raise CompsegError(
                f"phantom, arrays.{name}.takes: expected at most the {len(words)} {condition} spots that it holds, "
                f"got {wanted}; lower takes or raise holds"
            )
        shuffled = [words[i] for i in rng.permutation(len(words))]
        for split, counts in plan.takes.items():
            count = counts.get(condition, 0)
            for k in range(count):
                cue = 2 * label - 1 if split != "test" else 1 - 2 * (k % 2)
                yield shuffled.pop(), label, split, patient + k // spots_per_patient, cue
            patient += -(-count // spots_per_patient)
