import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_source import MemorySource

from compseg.cohort import assign_splits, find_problems, hold_out, prepare
from compseg.cohort.splits import look_alikes
from compseg.errors import CompsegError
from compseg.samples import SampleInfo, identifier, look_alike
from compseg.sources.manifest import read_manifest

SAME = {"train": 0.5, "val": 0.25, "test": 0.25, "seed": 0}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        *(
            (word, "")
            for word in ("", " ", "nan", "NaN", "NA", "N/A", "#N/A", "<NA>", "None", "null", "unknown", "-", "?")
        ),
        (None, ""),
        (float("nan"), ""),
        (3, "3"),
        (3.0, "3"),
        ("3.0", "3"),
        ("3.50", "3.50"),
        ("003", "003"),
        ("1e5", "1e5"),
        ("2020-01-01", "2020-01-01"),
        ("on", "on"),
        (" P  1\t", "P 1"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("Nan Li", "Nan Li"),
    ],
)
def test_identifiers(given, text):
    assert identifier(given) == text
    assert SampleInfo("s", 0, patient=given, group=given) == SampleInfo("s", 0, patient=text, group=text)


@given(st.text())
def test_an_identifier_stays_as_it_is(text):
    assert identifier(identifier(text)) == identifier(text)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("P1", "p 1", True),
        ("P1", "P-01", True),
        ("12A", "12-a", True),
        ("M\u00fcller", "M\u00dcLLER", True),
        ("\uff11", "1", True),  # full width
        ("1-11", "11-1", False),
        ("P1", "P10", False),
        ("P1", "Q1", False),
    ],
)
def test_what_looks_alike(one, other, alike):
    assert (look_alike(one) == look_alike(other)) == alike


def test_samples_of_nobody_are_not_one_patient():
    infos = [SampleInfo(f"s{i}", i % 2, patient="nan") for i in range(20)]
    assert {info.split for info in assign_splits(infos, SAME)} == {"train", "val", "test"}


def test_one_patient_written_as_two_numbers_is_not_parted():
    infos = [SampleInfo(f"s{i}{j}", i % 2, patient=f"{i}{tail}") for i in range(8) for j, tail in enumerate(("", ".0"))]
    assigned = assign_splits(infos, SAME)
    assert all(one.split == other.split for one, other in zip(assigned[::2], assigned[1::2], strict=True))


def test_a_group_given_in_several_splits_counts_once():
    """Ten healthy samples of A are given; of the ten others each split gets what it lacks of its share."""
    held = [SampleInfo(f"a{i}", 0, split="test" if i < 5 else "train", group="A") for i in range(10)]
    free = [SampleInfo(f"b{i}", 0) for i in range(10)]
    splits = [info.split for info in assign_splits([*held, *free], {"train": 0.5, "val": 0.0, "test": 0.5})]
    assert splits[10:].count("train") == splits[10:].count("test") == 5


@pytest.mark.parametrize("group", ["7", 7, 7.0, "7.0"])
def test_a_held_out_group_may_be_a_number(group):
    infos = [SampleInfo(f"s{i}", i % 2, split="train", group=str(7 + i // 4)) for i in range(8)]
    assert [info.split for info in hold_out(infos, group)].count("test") == 4


def test_groups_in_two_spellings(tmp_path, capfd):
    source = MemorySource(8)
    groups = ["A1", "A 1", "B", "B", "", "?", "11-1", "1-11"]
    source.samples = [replace(info, group=group) for info, group in zip(source.samples, groups, strict=True)]
    prepare(source, tmp_path / "c")
    problems = [problem for problem in find_problems(tmp_path / "c") if "group" in problem.what]
    assert [(problem.sample, problem.what) for problem in problems] == [
        ("s00", "group A1 looks like A 1 of sample s01")
    ]
    assert "group A1 looks like A 1 of sample s01" in capfd.readouterr().err


@pytest.mark.parametrize("group", ["NA", "", "none"])
def test_samples_without_a_group_are_no_group(group):
    infos = [SampleInfo(f"s{i}", i % 2, split="train") for i in range(4)]
    with pytest.raises(CompsegError, match="no sample is of this group"):
        hold_out(infos, group)


def test_prepare_and_check_find_look_alikes_across_splits(tmp_path, capfd):
    source = MemorySource(8)
    patients = ["P1", "P2", "P3", "P4", "p-01", "P6", "P7", "P 04"]
    splits = ["train", "train", "val", "val", "test", "test", "train", "val"]
    source.samples = [
        replace(info, patient=patient, split=split)
        for info, patient, split in zip(source.samples, patients, splits, strict=True)
    ]
    assert [(one.name, other.name) for one, other in look_alikes(source.samples)] == [("s00", "s04")]
    prepare(source, tmp_path / "c")
    assert "patient p-01 (test) looks like P1 (train) of sample s00; write one" in capfd.readouterr().err
    (problem,) = find_problems(tmp_path / "c")
    assert (problem.sample, problem.file) == ("s04", "s04.npy")
    assert "patient p-01 (test) looks like P1 (train) of sample s00" in problem.what


def test_samples_of_nobody_beside_patients_are_said(tmp_path, capfd):
    source = MemorySource(6)
    source.samples = [*source.samples[:4], *(replace(info, patient="NA") for info in source.samples[4:])]
    prepare(source, tmp_path / "c")
    assert "no patient is named, so that a patient may be in two splits (2 samples: s04, s05)" in capfd.readouterr().err


NAMES = ["001", "1e5", "NA", "2020-01-01", "on", "1_000", "null", "True", "0x10", "1.0"]


def test_cells_that_say_nothing(tmp_path):
    for name in ("x", "NA"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 2)))
    header, row = (
        ["sample", "image", "label", "class", "split", "truth", "tissue"],
        ["a", "x.npy", "NA", "T", "NA", "NA"],
    )
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, [*row, "NA.npy"]])
    (found,) = read_manifest(tmp_path / "m.csv", {"T": 1})
    assert (found.info.label, found.info.split) == (1, "")
    assert found.files == {"image": tmp_path / "x.npy", "tissue": tmp_path / "NA.npy"}
    with pytest.raises(CompsegError, match="sample a: no label; fill in 0 or 1"):
        read_manifest(tmp_path / "m.csv")


def test_names_in_a_manifest_stay_text(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sample", "image", "label", "class"], *([n, "x.npy", 0, n] for n in NAMES)])
    infos = [row.info for row in read_manifest(tmp_path / "m.csv", dict.fromkeys(NAMES, 0))]
    assert [info.name for info in infos] == [info.class_name for info in infos] == NAMES
