import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from memory_source import MemorySource

from compseg.cohort import Cohort, prepare, store
from compseg.errors import CompsegError
from running import HANGS


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "c.zarr"
    return prepare(MemorySource(size=(100, 80, 3)), path, chunk=32, progress=False)


@pytest.mark.parametrize("large", [0, 2**30], ids=["by rows of blocks", "at once"])
def test_windows(cohort, monkeypatch, large):
    monkeypatch.setattr(store, "LARGE", large)
    whole, tissue, truth = cohort.image("s01"), cohort.tissue("s01"), cohort.truth("s01")
    for rows, columns in ((slice(0, 10), slice(5, 80)), (slice(31, 65), slice(0, 33)), (slice(90, 200), slice(70, 99))):
        window = rows, columns
        np.testing.assert_array_equal(cohort.image("s01", window), whole[window])
        np.testing.assert_array_equal(cohort.tissue("s01", window), tissue[window])
        np.testing.assert_array_equal(cohort.truth("s01", window), truth[window])


@pytest.mark.parametrize("large", [0, 2**30], ids=["by rows of blocks", "at once"])
def test_reads_into_memory_that_is_there(cohort, monkeypatch, large):
    monkeypatch.setattr(store, "LARGE", large)
    for part, expected in (("image", cohort.image("s01")), ("tissue", cohort.tissue("s01"))):
        out = np.ones_like(expected)
        cohort.read_into(out, "s01", part)
        np.testing.assert_array_equal(out, expected)
    window = slice(31, 65), slice(2, 40)
    out = np.empty((34, 38, 3), np.float16)
    cohort.read_into(out, "s01", "image", window)
    np.testing.assert_array_equal(out, cohort.image("s01")[window])
    with pytest.raises(CompsegError, match="s01/truths: damaged or missing"):
        cohort.read_into(np.empty((100, 80), bool), "s01", "truths")


def test_splits_hold_every_sample_once(cohort):
    names = [info.name for which in ("train", "val", "test") for info in cohort.split(which)]
    assert sorted(names) == [info.name for info in cohort.infos]
    with pytest.raises(CompsegError, match="split valid: expected one of train, val, test"):
        cohort.split("valid")


def test_unknown_sample(cohort):
    with pytest.raises(CompsegError, match="no sample s99"):
        cohort.image("s99")


def test_pickles_small_and_reads_again(cohort):
    cohort.image("s00")
    copy = pickle.loads(pickle.dumps(cohort))
    assert copy._arrays == {}
    np.testing.assert_array_equal(copy.image("s00"), cohort.image("s00"))


def _mean(cohort, name):
    return float(cohort.image(name).mean(dtype=np.float64))


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_processes_read_side_by_side(cohort, method):
    names = [info.name for info in cohort.infos]
    expected = [_mean(cohort, name) for name in names]  # the parent has arrays open before it forks
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(_mean, [cohort] * len(names), names, timeout=HANGS)) == expected


def test_what_is_no_cohort(tmp_path, cohort):
    with pytest.raises(CompsegError, match=r"no such cohort; make one with python -m compseg\.prepare"):
        Cohort.open(tmp_path / "none")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for other in ("file", "folder"):
        with pytest.raises(CompsegError, match="no cohort"):
            Cohort.open(tmp_path / other)
    newer = json.loads((cohort.path / "zarr.json").read_text())
    newer["attributes"]["compseg"]["schema"] = 99
    (tmp_path / "folder/zarr.json").write_text(json.dumps(newer))
    with pytest.raises(CompsegError, match="schema 99, this compseg reads up to 1; update compseg"):
        Cohort.open(tmp_path / "folder")
    (tmp_path / "folder/zarr.json").write_text("{")
    with pytest.raises(CompsegError, match="no cohort"):
        Cohort.open(tmp_path / "folder")
