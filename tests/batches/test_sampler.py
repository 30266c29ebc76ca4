from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.batches.sampler import BalancedBatches, batches_of_equal_shape
from compseg.errors import CompsegError


@given(
    healthy=st.integers(1, 40),
    disease=st.integers(1, 40),
    batch_size=st.integers(2, 9),
    world=st.integers(1, 4),
    epoch=st.integers(0, 5),
)
def test_every_rank_sees_both_classes_and_nobody_twice(
    healthy: int, disease: int, batch_size: int, world: int, epoch: int
):
    labels = [0] * healthy + [1] * disease
    try:
        ranks = [BalancedBatches(labels, batch_size, seed=3, rank=rank, world=world) for rank in range(world)]
    except CompsegError:
        assert min(healthy, disease) < (batch_size + 1) // 2 * world
        return
    seen: Counter[int] = Counter()
    lengths = set()
    for sampler in ranks:
        sampler.set_epoch(epoch)
        batches = list(sampler)
        lengths.add(len(batches))
        assert len(batches) == len(sampler) > 0
        for batch in batches:
            assert len(batch) == batch_size
            positives = sum(labels[index] for index in batch)
            assert abs(2 * positives - batch_size) <= 1
            seen.update(batch)
    assert len(lengths) == 1, "ranks must take equally many steps"
    assert max(seen.values()) == 1


def test_epochs_differ_and_repeat_by_seed():
    labels = [0, 1] * 10
    first, again = BalancedBatches(labels, 4, seed=1), BalancedBatches(labels, 4, seed=1)
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)


def test_the_larger_class_is_shown_in_full_over_the_epochs():
    labels = [0] * 4 + [1] * 40
    sampler = BalancedBatches(labels, 4)
    seen = set()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        seen.update(index for batch in sampler for index in batch)
    assert seen == set(range(44))


def test_two_devices_take_the_same_steps_as_one_with_a_double_batch():
    labels = [0] * 16 + [1] * 16
    whole = list(BalancedBatches(labels, 8))
    halves = zip(*(BalancedBatches(labels, 4, rank=rank, world=2) for rank in range(2)), strict=True)
    assert [set(batch) for batch in whole] == [set(a) | set(b) for a, b in halves]


def test_a_class_too_small_is_named():
    with pytest.raises(CompsegError, match="1 healthy and 9 disease"):
        BalancedBatches([0] + [1] * 9, 8)
    with pytest.raises(CompsegError, match="at least 2"):
        BalancedBatches([0, 1], 1)


@given(
    healthy=st.integers(4, 30),
    disease=st.integers(4, 30),
    batch_size=st.integers(2, 5),
    world=st.integers(1, 2),
    epoch=st.integers(0, 5),
    share=st.floats(0, 1),
)
def test_a_resumed_epoch_shows_what_is_left_of_it(
    healthy: int, disease: int, batch_size: int, world: int, epoch: int, share: float
):
    labels = [0] * healthy + [1] * disease
    try:
        sampler = BalancedBatches(labels, batch_size, rank=world - 1, world=world)
    except CompsegError:
        return
    sampler.set_epoch(epoch)
    whole = list(sampler)
    step = round(share * len(whole))
    sampler.resume_at(epoch, step)
    assert list(sampler) == whole[step:]
    assert len(sampler) == len(whole), "Lightning counts the steps that were taken before"
    sampler.set_epoch(epoch)
    assert list(sampler) == whole


@given(
    sizes=st.lists(st.sampled_from([(8, 8), (8, 6), (5, 9)]), min_size=1, max_size=30),
    batch_size=st.integers(1, 5),
    world=st.integers(1, 4),
)
def test_in_validation_every_sample_counts_once_and_none_is_padded(
    sizes: list[tuple[int, int]], batch_size: int, world: int
):
    ranks = [batches_of_equal_shape(sizes, range(rank, len(sizes), world), batch_size) for rank in range(world)]
    assert sorted(index for batches in ranks for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in (batch for batches in ranks for batch in batches):
        assert len({sizes[index] for index in batch}) == 1
        assert 1 <= len(batch) <= batch_size
