"""One group left out of training: who judges, who trains, and that patients stay whole."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from memory_source import MemorySource

from compseg.cohort import Cohort, hold_out, prepare
from compseg.errors import CompsegError
from compseg.samples import SampleInfo


def array(group, split, count=12):
    """Spots of one array, two of each patient."""
    return [
        SampleInfo(f"{group}_{i}", i // 2 % 2, split=split, group=group, patient=f"{group}p{i // 2}")
        for i in range(count)
    ]


def splits_by_group(infos):
    found = defaultdict(Counter)
    for info in infos:
        found[info.group][info.split] += 1
    return {group: dict(counts) for group, counts in found.items()}


def test_the_test_array_left_out_changes_nothing():
    infos = [*array("A", "train"), *array("B", "val"), *array("C", "test")]
    assert hold_out(infos, "C") == infos


def test_a_training_array_left_out_is_tested_and_the_test_array_trains():
    infos = [*array("A", "train", 24), *array("B", "train", 18), *array("B2", "val", 6), *array("C", "test", 24)]
    found = splits_by_group(hold_out(infos, "A"))
    assert found["A"] == {"test": 24}
    assert found["B"] == {"train": 18}
    assert found["B2"] == {"val": 6}
    assert found["C"]["train"] > found["C"].get("val", 0)
    assert "test" not in found["C"]


def test_as_validation_split_test_samples_stay_unseen():
    infos = [*array("A", "train"), *array("B", "val"), *array("C", "test")]
    mixed = [replace(info, split="test") if info.patient == "Ap0" else info for info in infos]
    left = hold_out(mixed, "A", "val")
    assert splits_by_group(left) == {"A": {"val": 10}, "B": {"train": 12}, "C": {"test": 12}}
    with pytest.raises(CompsegError, match=r"held_out=C: no training or validation sample is of this group"):
        hold_out(mixed, "C", "val")


def test_a_patient_on_two_arrays_is_of_the_one_left_out():
    infos = [*array("A", "train"), *array("B", "train"), *array("V", "val"), *array("C", "test")]
    moved = [
        replace(info, patient="both", split="train") if info.name in ("A_0", "A_1", "B_0", "B_1") else info
        for info in infos
    ]
    left = {info.name: info.split for info in hold_out(moved, "A")}
    assert left["A_0"] == "test"
    assert "B_0" not in left
    assert len(left) == len(moved) - 2


def test_groups_divided_by_the_given_splits_are_assigned_by_sample():
    infos = [
        SampleInfo(f"{group}{i}", i % 2, split=split, group=group)
        for group in "AB"
        for i, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 4)
    ]
    found = splits_by_group(hold_out(infos, "A"))
    assert found["A"] == {"test": 12}
    assert set(found["B"]) == {"train", "val"}
    assert sum(found["B"].values()) == 12


@pytest.mark.parametrize(
    ("group", "role", "words"),
    [
        ("Z", "test", "held_out=Z: no sample is of this group; groups: A, B"),
        ("A", "train", "held_out_as=train: expected test or val"),
        ("B", "test", "no training sample is left; the other groups. samples are of its patients; leave another"),
    ],
)
def test_what_cannot_be_left_out_is_said(group, role, words):
    infos = [replace(info, patient="p") for info in [*array("A", "train"), *array("B", "train")]]
    with pytest.raises(CompsegError, match=words):
        hold_out(infos, group, role)


spots = st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ABCD"), st.integers(0, 9)), min_size=8, max_size=60)


@given(spots, st.sampled_from(["test", "val"]), st.randoms())
def test_patients_stay_whole_and_the_group_takes_no_part_in_training(members, role, random):
    split_of = {patient: random.choice(["train", "train", "val", "test"]) for patient in range(10)}
    infos = [
        SampleInfo(f"s{i}", label, split=split_of[patient], group=group, patient=f"p{patient}")
        for i, (label, group, patient) in enumerate(members)
    ]
    group = infos[0].group
    try:
        left = hold_out(infos, group, role)
    except CompsegError:
        assume(False)
    assert left == hold_out(infos, group, role)
    assert all(info.split == role for info in left if info.group == group)
    assert {info.group for info in left if info.split == role} == {group}
    by_patient = defaultdict(set)
    for info in left:
        by_patient[info.patient].add(info.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    if role == "val":
        before = {info.name for info in infos if info.split == "test"}
        assert {info.name for info in left if info.split == "test"} <= before
        assert not before & {info.name for info in left if info.split != "test"}


def test_a_cohort_gets_new_splits_without_being_written(tmp_path):
    source = MemorySource(6)
    given = [("A", "train"), ("A", "train"), ("B", "val"), ("B", "val"), ("C", "test"), ("C", "test")]
    source.samples = [
        replace(info, group=group, split=split) for info, (group, split) in zip(source.samples, given, strict=True)
    ]
    cohort = prepare(source, tmp_path / "c.zarr", progress=False)
    view = cohort.holding_out("A")
    assert {info.group for info in view.split("test")} == {"A"}
    assert {info.group for info in Cohort.open(tmp_path / "c.zarr").split("test")} == {"C"}
    assert (view.image("s00") == cohort.image("s00")).all()


@pytest.mark.parametrize("group", [0, 1, "1"])
def test_a_group_whose_name_is_a_number(tmp_path, group):
    """`data.held_out=1` comes from the command line as a number; the group's name is text."""
    infos = [*array("0", "train"), *array("1", "train"), *array("2", "val")]
    assert splits_by_group(hold_out(infos, group))[str(group)] == {"test": 12}
    cohort = prepare(MemorySource(6), tmp_path / "c.zarr", progress=False)
    assert cohort.holding_out(None) is cohort
    cohort.infos = infos
    assert {info.group for info in cohort.holding_out(group).split("test")} == {str(group)}
