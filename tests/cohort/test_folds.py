"""Folds of a cross-validation: no patient in two, each sample left out once, both labels on every side."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.cohort import hold_out
from compseg.cohort.splits import folds_of
from compseg.errors import CompsegError
from compseg.samples import SampleInfo

PATIENT = st.tuples(st.integers(1, 4), st.integers(0, 1), st.sampled_from(["train", "val", "test"]))
PATIENTS = st.lists(PATIENT, min_size=8)


def samples(patients):
    """Of each patient: how many samples, their label, their split."""
    return [
        SampleInfo(f"s{number}_{i}", label, split=split, patient=f"p{number}")
        for number, (count, label, split) in enumerate(patients)
        for i in range(count)
    ]


def fold(number, of=4, seed=0):
    return {"fold": number, "of": of, "seed": seed}


@given(PATIENTS)
def test_no_patient_is_in_two_folds_and_every_sample_is_left_out_once(patients):
    infos = samples(patients)
    times = Counter()
    for number in range(1, 5):
        held = hold_out(infos, fold(number))
        left_out = {info.name for info in held if info.split == "test"}
        assert {info.patient for info in held if info.name in left_out}.isdisjoint(
            info.patient for info in held if info.name not in left_out
        )
        splits = {}
        for info in held:
            assert splits.setdefault(info.patient, info.split) == info.split
        assert [info.name for info in held] == [info.name for info in infos]
        times.update(left_out)
    assert times == dict.fromkeys((info.name for info in infos), 1)


def test_folds_are_alike_and_those_of_another_seed_are_others():
    infos = samples([(2, number % 2, "train") for number in range(40)])
    found = folds_of(infos, 5, seed=0)
    of_labels = Counter((found[info.name], info.label) for info in infos)
    assert set(of_labels.values()) == {8}
    assert folds_of(infos, 5, seed=0) == found
    assert folds_of(list(reversed(infos)), 5, seed=0) == found
    assert folds_of(infos, 5, seed=1) != found


def test_what_is_not_left_out_trains_and_chooses_inside():
    infos = samples([(2, number % 2, "test") for number in range(40)])
    held = hold_out(infos, fold(1, of=5))
    count = Counter((info.split, info.label) for info in held)
    assert count["test", 0] == count["test", 1] == 8
    assert min(count["val", 0], count["val", 1]) >= 2
    assert min(count["train", 0], count["train", 1]) >= 24


def test_test_samples_stay_unseen_where_validation_samples_are_left_out():
    infos = samples([(2, number % 2, "test" if number < 8 else "train") for number in range(40)])
    held = hold_out(infos, fold(2), role="val")
    assert {info.name for info in held if info.split == "test"} == {info.name for info in infos if info.split == "test"}
    assert {info.split for info in held} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (fold(1, of=41), "folds=41: expected from 2 to 40, the patients"),
        (fold(0), "expected a group, or a fold such as {fold:1,of:5,seed:0}"),
        (fold(5), "expected a group, or a fold such as"),
        ({"fold": 1}, "expected a group, or a fold such as"),
    ],
)
def test_a_fold_that_cannot_be_is_refused(given, line):
    with pytest.raises(CompsegError) as refused:
        hold_out(samples([(1, number % 2, "train") for number in range(40)]), given)
    assert line in str(refused.value)
