"""Who trains, who validates, who tests: given splits are kept, the rest is drawn by label, and no patient is parted."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from compseg.errors import CompsegError
from compseg.samples import SPLITS, SampleInfo

DEFAULT_SPLITS: Mapping[str, float] = MappingProxyType({"train": 0.7, "val": 0.1, "test": 0.2, "seed": 0})

VAL_SHARE = 0.125  # of train and val together, where the given splits say nothing of it

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

    A sample with a split keeps it. The others are drawn so that, counting the given ones, each label comes near the
    wanted fractions in each split. What belongs together stays together: samples of a patient, else of a group. Depends
    on names, labels and the seed, not on the order of the samples. First each split gets one unit of each label while
    there are any; then the largest units are placed first, each where it overfills least.

    Args:
        infos: The samples.
        splits: Fractions `train`, `val`, `test`, which sum to 1, and `seed`.

    Returns:
        The samples in the same order, each with a split.

    Raises:
        CompsegError: Bad fractions, a patient given in two splits, or a group given in two splits of which a sample has
            none.
    """
    fractions = _fractions(splits)
    _patients_whole(infos)
    units: dict[Unit, list[SampleInfo]] = defaultdict(list)
    for info in infos:
        units[_unit(info)].append(info)
    place = {unit: _given(unit, members) for unit, members in units.items()}
    open_units = {unit: Counter(m.label for m in units[unit]) for unit, split in place.items() if not split}
    held = {
        name: Counter(info.label for info in infos if place[_unit(info)] == name or info.split == name)
        for name in SPLITS
    }
    place.update(_draw(open_units, held, fractions, int(splits.get("seed", 0))))
    return [info if info.split else replace(info, split=place[_unit(info)]) for info in infos]


def hold_out(infos: Sequence[SampleInfo], group: str, role: str = "test") -> list[SampleInfo]:
    """Split anew so that one group (array, slide, scanner) is what the others are judged on.

    With `role` test the group's samples become the test split. Of the others, those that train or validate go on doing
    so, and former test samples are drawn into these two splits in the same proportion. With `role` val the group's
    samples become the validation split, its other training and validation samples the training split, and test samples
    stay what they are, unless they are of the group: those are left out, so that choosing a method by left-out groups
    needs no test sample.

    A patient of the group is of the group with all samples: what lies on other groups is left out, not trained on.

    Args:
        infos: The samples, each with a split.
        group: The group to leave out of training.
        role: `test` or `val`.

    Returns:
        The samples that are left, each with its new split, in the same order.

    Raises:
        CompsegError: No sample is of the group, the role is another word, or no sample is left to train on.
    """
    if role not in ("test", "val"):
        raise CompsegError(f"data.held_out_as={role}: expected test or val")
    members = {info.name for info in infos if info.group == group and (role == "test" or info.split != "test")}
    if not members:
        words = "training or validation " if role == "val" else ""
        known = ", ".join(sorted({info.group for info in infos if info.group})) or "none"
        raise CompsegError(f"data.held_out={group}: no {words}sample is of this group; groups: {known}")
    patients = {info.patient for info in infos if info.name in members and info.patient}
    others = [info for info in infos if info.group != group and info.patient not in patients]
    split = {name: role for name in members} | {info.name: info.split for info in _without(others, role)}
    if "train" not in split.values():
        raise CompsegError(f"data.held_out={group}: no training sample is left; leave another group out")
    return [replace(info, split=split[info.name]) for info in infos if info.name in split]


def _without(others: Sequence[SampleInfo], role: str) -> list[SampleInfo]:
    """What samples outside the group do."""
    if role == "val":
        return [replace(info, split="train") if info.split == "val" else info for info in others]
    count = Counter(info.split for info in others)
    val = count["val"] / (count["train"] + count["val"]) if count["train"] and count["val"] else VAL_SHARE
    open_ = [replace(info, split="") if info.split == "test" else info for info in others]
    if _parted_groups(others):  # where the cohort's own splits part groups, there is no group to keep whole
        open_ = [replace(info, group="") for info in open_]
    return assign_splits(open_, {"train": 1 - val, "val": val, "test": 0.0, "seed": 0})


def _parted_groups(infos: Sequence[SampleInfo]) -> bool:
    splits: dict[str, set[str]] = defaultdict(set)
    for info in infos:
        splits[info.group].add(info.split)
    return any(len({"train", "val"} & found) == 2 for group, found in splits.items() if group)


def _fractions(splits: Mapping[str, float]) -> dict[str, float]:
    fractions = {name: float(splits.get(name, 0)) for name in SPLITS}
    if min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise CompsegError(
            f"splits: expected fractions of at least 0 that sum to 1, found {fractions}; mend splits.train (val, test)"
        )
    return fractions


def _patients_whole(infos: Sequence[SampleInfo]) -> None:
    seen: dict[str, SampleInfo] = {}
    for info in infos:
        if not (info.patient and info.split):
            continue
        first = seen.setdefault(info.patient, info)
        if first.split != info.split:
            raise CompsegError(
                f"patient {info.patient}: sample {first.name} is in {first.split}, {info.name} in {info.split}; "
                "give all samples of a patient one split"
            )


def _unit(info: SampleInfo) -> Unit:
    if info.patient:
        return "patient", info.patient
    return ("group", info.group) if info.group else ("sample", info.name)


def _given(unit: Unit, members: Sequence[SampleInfo]) -> str:
    """The split that some of the unit have and the others follow; empty if it is still to be drawn."""
    given = sorted({info.split for info in members} - {""})
    bare = [info.name for info in members if not info.split]
    if len(given) > 1 and bare:
        raise CompsegError(
            f"{unit[0]} {unit[1]}: is given in {' and '.join(given)}, so sample {bare[0]} cannot follow; give its split"
        )
    return given[0] if given else ""


def _draw(
    units: Mapping[Unit, Counter[int]], held: Mapping[str, Counter[int]], fractions: Mapping[str, float], seed: int
) -> dict[Unit, str]:
    total = sum([*held.values(), *units.values()], Counter[int]())
    fills = {
        name: _Fill(Counter({label: share * count for label, count in total.items()}), Counter(held[name]))
        for name, share in fractions.items()
        if share > 0
    }
    # A hash, so that neither the order of the manifest nor the version of a random generator matters.
    shuffled = sorted(units, key=lambda unit: hashlib.sha256(repr((seed, unit)).encode()).digest())
    smallest_first = sorted(shuffled, key=lambda unit: units[unit].total())
    place: dict[Unit, str] = {}

    def put(unit: Unit, name: str) -> None:
        place[unit] = name
        fills[name].held.update(units[unit])

    for label in sorted(total):
        for name, fill in fills.items():
            first = next((unit for unit in smallest_first if unit not in place and units[unit][label]), None)
            if first is not None and not fill.held[label]:
                put(first, name)
    for unit in reversed(smallest_first):
        if unit not in place:
            put(unit, min(fills, key=lambda name: fills[name].fullness_with(units[unit])))
    return place
