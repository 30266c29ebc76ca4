"""Windows of a cohort's image: the same pixels, and none decoded again that the previous window held."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.cohort import Cohort, prepare
from compseg.inference.images import Windows
from compseg.samples import Channels, SampleArrays, SampleInfo

HEIGHT, WIDTH, CHANNELS = 40, 50, 3


class OneImage:
    """A source of one image of random values."""

    def infos(self):
        return [SampleInfo("s", 1, split="test")]

    def read(self, info):
        image = np.random.default_rng(0).random((HEIGHT, WIDTH, CHANNELS), dtype=np.float32).astype("f2")
        return SampleArrays(image, np.ones((HEIGHT, WIDTH), bool))

    def channels(self):
        return Channels(CHANNELS)

    def provenance(self):
        return {"source": "one image"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    path: Path = tmp_path_factory.mktemp("windows") / "c.zarr"
    return prepare(OneImage(), path, chunk=16, progress=False)


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[slice, slice]]:
    """The windows that are decoded."""
    windows, real = [], Cohort.read_into

    def read_into(self, out, name, part, window=None):
        windows.append(window)
        real(self, out, name, part, window)

    monkeypatch.setattr(Cohort, "read_into", read_into)
    return windows


def sides(length: int):
    return st.tuples(st.integers(0, length - 1), st.integers(1, length)).map(lambda ends: slice(ends[0], sum(ends)))


# Few kinds of rows, so that windows do follow each other along a row.
WINDOWS = st.tuples(st.sampled_from([slice(0, 20), slice(3, 40), slice(None)]), sides(WIDTH))


@given(st.lists(st.tuples(WINDOWS, st.sampled_from(["whole", "part", "nothing"])), max_size=6))
def test_windows_hold_the_image_whatever_came_before(cohort, windows):
    """What is held stays as it is; what is not may give its memory to the next."""
    read, whole, held = Windows(cohort, "s"), cohort.image("s"), []
    for window, kept in windows:
        image, expected = read(window), whole[window]
        np.testing.assert_array_equal(image, expected)
        held += {"whole": [(image, expected)], "part": [(image[:, -1:], expected[:, -1:])], "nothing": []}[kept]
        del image
    for image, expected in held:
        np.testing.assert_array_equal(image, expected)


def test_what_is_shared_is_copied(cohort, decoded):
    read, rows = Windows(cohort, "s"), slice(4, 30)
    for columns in (slice(0, 20), slice(12, 32), slice(12, 32), slice(40, 50)):
        read((rows, columns))
    assert decoded == [(rows, slice(0, 20)), (rows, slice(20, 32)), (rows, slice(40, 50))]


def test_what_other_rows_hold_or_lies_before_is_read(cohort, decoded):
    read, rows = Windows(cohort, "s"), slice(0, 10)
    windows = [(rows, slice(10, 20)), (slice(5, 15), slice(10, 20)), (slice(5, 15), slice(4, 14))]
    for window in windows:
        read(window)
    assert decoded == windows


def test_windows_lie_in_the_same_memory_until_the_image_ends(cohort):
    read, rows = Windows(cohort, "s"), slice(20, HEIGHT)
    places = [read((rows, columns)).ctypes.data for columns in (slice(0, 20), slice(12, 32), slice(31, 41))]
    assert len(set(places)) == 1
    buffer = weakref.ref(read._buffer)
    read((rows, slice(40, WIDTH)))
    assert buffer() is None


def test_windows_that_are_held_share_no_memory(cohort):
    read = Windows(cohort, "s")
    first = read((slice(0, 10), slice(0, 20)))
    second = read((slice(0, 10), slice(0, 20)))
    first[:] = 0
    assert second.any()
