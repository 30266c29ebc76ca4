"""Tasks in forked processes, and how the machine is shared out among them."""

import os

import pytest

from compseg.comparison import forked
from compseg.comparison.forked import Room, Task
from compseg.errors import CompsegError


@pytest.fixture
def machine(monkeypatch):
    """A made-up machine: eight cores and some GPUs."""

    def make(*gpus):
        monkeypatch.setattr(forked, "visible_gpus", lambda: list(gpus))
        monkeypatch.setattr("compseg.sweeps.machine.usable_cores", lambda: 8)
        monkeypatch.setenv("OMP_NUM_THREADS", "")
        monkeypatch.delenv("OMP_NUM_THREADS")

    return make


@pytest.mark.parametrize(
    ("gpus", "jobs", "words"),
    [
        ((), "auto", "8 at once, 1 thread each, on 8 cores"),
        ((), 2, "2 at once, 4 threads each, on 8 cores"),
        (("0",), "auto", "1 at once, 8 threads each, on 8 cores, 1 GPU"),
        (("0",), 4, "4 at once, 2 threads each, on 8 cores, 1 GPU"),
        (("2", "5"), "auto", "2 at once, 4 threads each, on 8 cores, 2 GPUs"),
        (("2", "5"), 1, "1 at once, 8 threads each, on 8 cores, 2 GPUs"),
    ],
)
def test_the_machine_is_shared_out(machine, gpus, jobs, words):
    machine(*gpus)
    assert str(Room(jobs)) == words
    assert os.environ["OMP_NUM_THREADS"] == words.split(", ")[1].split()[0]


def test_several_jobs_may_share_a_gpu(machine):
    machine("2", "5")
    room = Room(4)
    taken = [room.machine.take().environment["CUDA_VISIBLE_DEVICES"] for _ in range(4)]
    assert sorted(taken) == ["2", "2", "5", "5"]
    assert room.machine.take() is None


def test_threads_that_are_given_stay(machine, monkeypatch):
    machine()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Room("auto").threads == 3


@pytest.mark.parametrize("jobs", [0, -1, "many", 1.5, None])
def test_a_number_of_jobs_that_is_none_is_refused(jobs):
    with pytest.raises(CompsegError, match="jobs="):
        Room(jobs)


def test_verbs_end_well_fail_and_are_ended(tmp_path, trained, monkeypatch):
    """Three real processes: one that succeeds, one with a fault of the user, one that cannot start."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tasks = [
        Task("good", "check", (f"cohort={trained.cohort}",), tmp_path / "good" / "out.txt"),
        Task("bad", "check", (f"cohort={tmp_path / 'absent.zarr'}",), tmp_path / "bad" / "out.txt"),
        Task("unknown", "nothing", (), tmp_path / "unknown" / "out.txt"),
    ]
    ended = {one.task.name: one for one in Room(2).do(tasks)}
    assert {name: one.status for name, one in ended.items()} == {
        "good": "finished",
        "bad": "failed",
        "unknown": "failed",
    }
    assert ended["good"].why == ""
    assert ended["bad"].why.startswith(f"{tmp_path / 'absent.zarr'}: no such cohort")
    assert "No module named compseg.nothing" in ended["unknown"].why
    assert all(one.seconds > 0 for one in ended.values())
