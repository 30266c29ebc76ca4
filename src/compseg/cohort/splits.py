"""Who trains, who validates, who tests: given splits are kept, the rest is assigned by label, patients stay whole."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

from compseg.errors import CompsegError
from compseg.samples import SPLITS, SampleInfo, identifier, look_alike

DEFAULT_SPLITS: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.1, "test": 0.2, "seed": 0})

VAL_SHARE = 0.125  # of train and val together, where there is only one of them: 0.1 / (0.7 + 0.1), as in DEFAULT_SPLITS

Unit = tuple[str, str]  # what stays together: ("patient", key), else ("group", key), else ("sample", name)


@dataclass
class _Fill:
    """One split while it is filled."""

    target: Counter[int]  # wanted samples of each label; fractions of a sample allowed
    held: Counter[int]

    def fullness_with(self, labels: Counter[int]) -> float:
        """How far beyond its target the split would be, summed over the labels that come in."""
        return sum((self.held[label] + count) / self.target[label] for label, count in labels.items())


def assign_splits(infos: Sequence[SampleInfo], splits: Mapping[str, float]) -> list[SampleInfo]:
    """Give every sample a split.

    A sample with a split keeps it. The others are assigned so that, counting the given ones, each label comes close to
    the wanted fractions in each split. Samples of a patient, else of a group, stay together. The result depends on
    names, labels and the seed, not on the order of the samples. First each split gets one unit of each label while
    there are any; then the largest units are placed first, each where it overfills least.

    Args:
        infos: The samples.
        splits: Fractions `train`, `val`, `test`, which sum to 1, and `seed`.

    Returns:
        The samples in the same order, each with a split.

    Raises:
        CompsegError: Bad fractions, a patient given in two splits, or a group given in two splits with a sample that
            has no split.
    """
    fractions = {name: float(splits.get(name, 0)) for name in SPLITS}
    # Not exactly 1, because in binary .7 + .1 + .2 is a little less.
    if min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise CompsegError(
            f"splits: expected fractions of at least 0 that sum to 1, found {fractions}; "
            "correct splits.train, splits.val or splits.test"
        )
    _check_patients(infos)
    units: dict[Unit, list[SampleInfo]] = defaultdict(list)
    for info in infos:
        units[_unit(info)].append(info)
    split_of = {unit: _given_split(unit, members) for unit, members in units.items()}
    to_assign = {unit: Counter(m.label for m in units[unit]) for unit, split in split_of.items() if not split}
    # By its own split first: a group whose samples are given in several counts in each with those that are there.
    held = {
        name: Counter(info.label for info in infos if (info.split or split_of[_unit(info)]) == name) for name in SPLITS
    }
    split_of.update(_assign(to_assign, held, fractions, int(splits.get("seed", 0))))
    return [info if info.split else replace(info, split=split_of[_unit(info)]) for info in infos]


def folds_of(infos: Sequence[SampleInfo], number: int, seed: int) -> dict[str, int]:
    """The fold of each sample by name, from 1.

    Patients (else groups, else samples) stay whole, and labels are spread evenly.

    Args:
        infos: The samples; their splits have no part in it.
        number: Of folds.
        seed: Another one gives other folds.

    Raises:
        CompsegError: There are fewer patients than folds.
    """
    units: dict[Unit, Counter[int]] = defaultdict(Counter)
    for info in infos:
        units[_unit(info)][info.label] += 1
    if not 2 <= number <= len(units):
        raise CompsegError(
            f"folds={number}: expected from 2 to {len(units)}, the patients (else groups, else samples) that are there"
        )
    names = [str(fold) for fold in range(1, number + 1)]
    placed = _assign(units, {name: Counter() for name in names}, dict.fromkeys(names, 1 / number), seed)
    return {info.name: int(placed[_unit(info)]) for info in infos}


def hold_out(infos: Sequence[SampleInfo], group: object, role: str = "test") -> list[SampleInfo]:
    """Change the splits so that one group (array, slide, scanner) is what the others are judged on.

    With `role` test the group's samples become the test split. Of the others, those that train or validate keep doing
    so, and former test samples are assigned to these two splits in the same proportion. With `role` val the group's
    samples become the validation split, its other training and validation samples the training split, and test samples
    stay what they are, unless they are of the group: those are left out, so that choosing a method by left-out groups
    needs no test sample.

    A patient with a sample in the group belongs to it with all samples: those on other groups are left out, not trained
    on.

    A fold of a cross-validation takes the place of a group in the same way, but that with `role` test all others are
    split again: by the cohort's own splits some fold could leave hardly a validation sample.

    Args:
        infos: The samples, each with a split.
        group: The group to leave out of training; a number means the group of that name. Or a fold,
            `{"fold": 1, "of": 5, "seed": 0}`; see `folds_of`.
        role: `test` or `val`.

    Returns:
        The samples that are left, each with its new split, in the same order.

    Raises:
        CompsegError: No sample is of the group, the role is another word, or no sample is left to train on.
    """
    if role not in ("test", "val"):
        raise CompsegError(f"data.held_out_as={role}: expected test or val")
    if isinstance(group, Mapping):
        return _hold_out_fold(infos, group, role)
    group = identifier(group) or "NA"  # which is nobody's group: samples without a group are none
    members = {info.name for info in infos if info.group == group and (role == "test" or info.split != "test")}
    if not members:
        words = "training or validation " if role == "val" else ""
        known = ", ".join(sorted({info.group for info in infos if info.group})) or "none"
        raise CompsegError(f"data.held_out={group}: no {words}sample is of this group; groups: {known}")
    # To train on a patient's other samples would let the network recognise whom it is judged on.
    patients = {info.patient for info in infos if info.name in members and info.patient}
    others = [info for info in infos if info.group != group and info.patient not in patients]
    if role == "val":
        others = [replace(info, split="train") if info.split == "val" else info for info in others]
    else:
        others = _test_samples_train(others)
    split_of = {name: role for name in members} | {info.name: info.split for info in others}
    if "train" not in split_of.values():
        why = "; the other groups' samples are of its patients" if patients else ""
        raise CompsegError(f"data.held_out={group}: no training sample is left{why}; leave another group out")
    return [replace(info, split=split_of[info.name]) for info in infos if info.name in split_of]


def _hold_out_fold(infos: Sequence[SampleInfo], fold: Mapping[Any, Any], role: str) -> list[SampleInfo]:
    if set(fold) != {"fold", "of", "seed"} or not 1 <= fold["fold"] <= fold["of"]:
        raise CompsegError(f"data.held_out={dict(fold)}: expected a group, or a fold such as {{fold:1,of:5,seed:0}}")
    in_turn = [info for info in infos if role == "test" or info.split != "test"]
    folds = folds_of(in_turn, fold["of"], fold["seed"])
    left_out = {name for name, number in folds.items() if number == fold["fold"]}
    others = [info for info in infos if info.name not in left_out]
    if role == "val":
        others = [replace(info, split="train") if info.split == "val" else info for info in others]
    else:
        shares = {"train": 1 - VAL_SHARE, "val": VAL_SHARE, "test": 0.0, "seed": fold["seed"]}
        others = assign_splits([replace(info, split="") for info in others], shares)
    split_of = dict.fromkeys(left_out, role) | {info.name: info.split for info in others}
    return [replace(info, split=split_of[info.name]) for info in infos]


def _test_samples_train(infos: Sequence[SampleInfo]) -> list[SampleInfo]:
    """Test samples move to train and val, in the proportion of the samples that are there already."""
    count = Counter(info.split for info in infos)
    val = count["val"] / (count["train"] + count["val"]) if count["train"] and count["val"] else VAL_SHARE
    moved = [replace(info, split="") if info.split == "test" else info for info in infos]
    splits_of: dict[str, set[str]] = defaultdict(set)
    for info in infos:
        splits_of[info.group].add(info.split)
    # Where the cohort's own splits divide a group between train and val, groups need not stay whole.
    if any({"train", "val"} <= splits for group, splits in splits_of.items() if group):
        moved = [replace(info, group="") for info in moved]
    return assign_splits(moved, {"train": 1 - val, "val": val, "test": 0.0, "seed": 0})


def look_alikes(infos: Sequence[SampleInfo]) -> list[tuple[SampleInfo, SampleInfo]]:
    """Pairs of samples in different splits whose patients are written almost alike, as `P1` and `p-01`."""
    # By split too: of a patient in two splits one sample of each may look like the other patient.
    first: dict[tuple[object, ...], dict[tuple[str, str], SampleInfo]] = defaultdict(dict)
    for info in infos:
        if info.patient and (key := look_alike(info.patient)):
            first[key].setdefault((info.patient, info.split), info)
    pairs = (pair for written in first.values() for pair in combinations(written.values(), 2))
    return [(one, other) for one, other in pairs if one.split != other.split and one.patient != other.patient]


def _check_patients(infos: Sequence[SampleInfo]) -> None:
    """Refuse a patient whose given splits differ."""
    first: dict[str, SampleInfo] = {}
    for info in infos:
        if not (info.patient and info.split):
            continue
        other = first.setdefault(info.patient, info)
        if other.split != info.split:
            raise CompsegError(
                f"patient {info.patient}: sample {other.name} is in {other.split}, {info.name} in {info.split}; "
                "give all samples of a patient one split"
            )


def _unit(info: SampleInfo) -> Unit:
    if info.patient:
        return "patient", info.patient
    return ("group", info.group) if info.group else ("sample", info.name)


def _given_split(unit: Unit, members: Sequence[SampleInfo]) -> str:
    """The split that some of the unit have and the others follow; empty if it is still to be assigned."""
    given = sorted({info.split for info in members} - {""})
    without = [info.name for info in members if not info.split]
    if len(given) > 1 and without:
        raise CompsegError(
            f"{unit[0]} {unit[1]}: is given in {' and '.join(given)}, so sample {without[0]} cannot follow; "
            "give its split"
        )
    return given[0] if given else ""


def _assign(
    units: Mapping[Unit, Counter[int]], held: Mapping[str, Counter[int]], fractions: Mapping[str, float], seed: int
) -> dict[Unit, str]:
    """A split for each unit, by the number of samples of each label that the units and the splits hold."""
    total = sum([*held.values(), *units.values()], Counter[int]())
    fills = {
        name: _Fill(Counter({label: share * count for label, count in total.items()}), Counter(held[name]))
        for name, share in fractions.items()
        # A split without a share has a target of 0, by which its fullness could not be divided.
        if share > 0
    }
    # A hash, so that neither the order of the manifest nor the version of a random generator matters.
    shuffled = sorted(units, key=lambda unit: hashlib.sha256(repr((seed, unit)).encode()).digest())
    smallest_first = sorted(shuffled, key=lambda unit: units[unit].total())
    split_of: dict[Unit, str] = {}

    def put(unit: Unit, name: str) -> None:
        split_of[unit] = name
        fills[name].held.update(units[unit])

    # One unit of each label for each split first: without this a small split could end up without a label.
    for label in sorted(total):
        for name, fill in fills.items():
            # The smallest unit of the label, so that a patient with many samples does not swamp a small split.
            first = next((unit for unit in smallest_first if unit not in split_of and units[unit][label]), None)
            if first is not None and not fill.held[label]:
                put(first, name)
    # Then the largest first, while there is still space for them.
    for unit in reversed(smallest_first):
        if unit not in split_of:
            put(unit, min(fills, key=lambda name: fills[name].fullness_with(units[unit])))
    return split_of
