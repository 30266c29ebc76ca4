from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.cohort import DEFAULT_SPLITS, assign_splits
from compseg.errors import CompsegError
from compseg.samples import SPLITS, SampleInfo


def samples(*labels, **fields):
    return [SampleInfo(f"s{i}", label, **fields) for i, label in enumerate(labels)]


def counts(infos):
    return Counter((info.split, info.label) for info in infos)


def test_golden_assignment():
    """Pinned, so that a cohort prepared again in years is split alike."""
    assigned = assign_splits(samples(*[0, 1] * 10), DEFAULT_SPLITS)
    letters = "".join(info.split[0] + info.split[1] for info in assigned)
    assert counts(assigned) == {
        ("train", 0): 7,
        ("train", 1): 7,
        ("val", 0): 1,
        ("val", 1): 1,
        ("test", 0): 2,
        ("test", 1): 2,
    }
    assert letters == GOLDEN


GOLDEN = "trtrtetrvatrtetrtrtetrtrtrvatrtrtrtetrtr"

lone = st.lists(st.integers(0, 1), max_size=60)
member = st.builds(
    lambda label, patient, group: (label, patient, group),
    st.integers(0, 1),
    st.sampled_from(["", *"abcdefgh"]),
    st.sampled_from(["", "g1", "g2"]),
)
fractions = st.tuples(st.integers(1, 8), st.integers(0, 4), st.integers(0, 4)).map(
    lambda parts: dict(zip(SPLITS, (part / sum(parts) for part in parts), strict=True))
)


@given(lone, fractions, st.integers(0, 5))
def test_each_label_comes_near_its_fractions(labels, splits, seed):
    assigned = assign_splits(samples(*labels), {**splits, "seed": seed})
    held = counts(assigned)
    for label in (0, 1):
        for name, share in splits.items():
            assert abs(held[name, label] - share * labels.count(label)) <= 2
            if share == 0:
                assert held[name, label] == 0
            elif labels.count(label) >= 3:
                assert held[name, label] >= 1


@given(st.lists(member, max_size=30), fractions, st.integers(0, 5), st.randoms(use_true_random=False))
def test_nobody_is_parted_and_order_does_not_matter(members, splits, seed, random):
    infos = [SampleInfo(f"s{i}", label, patient=p, group=g) for i, (label, p, g) in enumerate(members)]
    assigned = assign_splits(infos, {**splits, "seed": seed})
    assert [replace(info, split="") for info in assigned] == infos
    homes = defaultdict(set)
    for info in assigned:
        assert info.split in SPLITS
        if info.patient or info.group:
            homes["p", info.patient].add(info.split) if info.patient else homes["g", info.group].add(info.split)
    assert all(len(home) == 1 for home in homes.values())
    shuffled = random.sample(infos, len(infos))
    again = {info.name: info.split for info in assign_splits(shuffled, {**splits, "seed": seed})}
    assert again == {info.name: info.split for info in assigned}


def test_seed_changes_the_assignment():
    infos = samples(*[0, 1] * 20)
    assigned = [assign_splits(infos, {**DEFAULT_SPLITS, "seed": seed}) for seed in range(5)]
    assert len({tuple(info.split for info in infos) for infos in assigned}) == 5


def test_given_splits_are_kept_and_count():
    infos = [replace(info, split="test" if i < 8 else "") for i, info in enumerate(samples(*[0, 1] * 20))]
    assigned = assign_splits(infos, DEFAULT_SPLITS)
    assert [info.split for info in assigned[:8]] == ["test"] * 8
    assert counts(assigned)["test", 0] == counts(assigned)["test", 1] == 4  # 20 % were given already


def test_samples_follow_their_patient():
    infos = [*samples(*[0, 1] * 10), SampleInfo("a", 1, split="val", patient="p"), SampleInfo("b", 1, patient="p")]
    assert assign_splits(infos, DEFAULT_SPLITS)[-1].split == "val"


def test_large_patients_do_not_swamp_a_small_split():
    infos = [SampleInfo(f"{p}{i}", p % 2, patient=str(p)) for p in range(20) for i in range(10)]
    held = counts(assign_splits(infos, DEFAULT_SPLITS))
    assert held["val", 0] == held["val", 1] == 10
    assert held["test", 0] == held["test", 1] == 20


def test_a_group_may_be_given_in_several_splits_if_all_is_given():
    infos = [SampleInfo("a", 0, split="train", group="A"), SampleInfo("b", 0, split="test", group="A")]
    assert assign_splits(infos, DEFAULT_SPLITS) == infos
    with pytest.raises(CompsegError, match="group A: is given in test and train, so sample c cannot follow"):
        assign_splits([*infos, SampleInfo("c", 0, group="A")], DEFAULT_SPLITS)


def test_a_patient_in_two_splits_is_refused():
    infos = [SampleInfo("a", 0, split="train", patient="p"), SampleInfo("b", 1, split="test", patient="p")]
    with pytest.raises(CompsegError, match="patient p: sample a is in train, b in test"):
        assign_splits(infos, DEFAULT_SPLITS)


@pytest.mark.parametrize("splits", [{}, {"train": 0.5}, {"train": 1.5, "val": -0.5}])
def test_bad_fractions(splits):
    with pytest.raises(CompsegError, match="sum to 1"):
        assign_splits(samples(0, 1), splits)
