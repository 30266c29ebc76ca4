"""The rule by which jobs share a machine."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.errors import CompsegError
from compseg.studies.comparison import slots_of
from compseg.studies.slots import Slots, device_count, visible_gpus


@pytest.fixture(autouse=True)
def no_threads_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_gpu_belongs_to_one_job():
    slots = Slots(gpus=["0", "1", "2", "3", "4"], cores=20)
    shares = [slots.take(2), slots.take(2)]
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0,1", "2,3"]
    assert {share.environment["OMP_NUM_THREADS"] for share in shares} == {"4"}
    assert slots.has_room()
    assert slots.take(2) is None
    shares[0].give_back()
    assert slots.take(3).environment["CUDA_VISIBLE_DEVICES"] == "4,0,1"


def test_without_gpus_a_process_has_a_core():
    slots = Slots(gpus=[], cores=5)
    assert slots.take(2).environment == {"OMP_NUM_THREADS": "1"}
    assert slots.take(2) is not None
    assert slots.take(2) is None
    assert slots.take(1) is not None
    assert not slots.has_room()


def test_fewer_jobs_have_more_cores():
    slots = Slots(jobs=2, gpus=[], cores=16)
    assert slots.take(1).environment == {"OMP_NUM_THREADS": "8"}
    assert Slots(jobs=2, gpus=[], cores=16).take(4).environment == {"OMP_NUM_THREADS": "2"}
    slots.take(1)
    assert slots.take(1) is None


def test_jobs_on_the_cpu_leave_gpus_alone():
    slots = Slots(accelerator="cpu", gpus=["0"], cores=2)
    assert "CUDA_VISIBLE_DEVICES" not in slots.take().environment


def test_threads_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Slots(gpus=[], cores=8).take().environment == {}


def test_a_job_that_wants_more_than_there_is_gets_all():
    slots = Slots(gpus=[], cores=2)
    assert len(slots.take(8).taken) == 2
    assert slots.take(1) is None


@given(st.integers(1, 9), st.lists(st.integers(1, 5), max_size=30), st.none() | st.integers(1, 4))
def test_nothing_is_given_out_twice_and_all_comes_back(cores, wishes, jobs):
    slots, held = Slots(jobs, gpus=[], cores=cores), []
    for wish in wishes:
        if (share := slots.take(wish)) is None:
            while held:
                held.pop().give_back()
            share = slots.take(wish)
        held.append(share)
        taken = [unit for share in held for unit in share.taken]
        assert len(taken) == len(set(taken)) <= cores
        assert len(held) <= (jobs or cores)
    for share in held:
        share.give_back()
    assert len(slots.free) == cores


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (4, 4), ("auto", 1), ("2", 2), ("0,2,3", 3), ([0, 1], 2), (-1, 1)]
)
def test_devices_are_counted(devices, count):
    assert device_count(devices) == count


def test_gpus_keep_the_names_that_the_user_gave(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, 5"}) == ["3", "5"]
    assert visible_gpus({}) == ["0", "1"]


@pytest.fixture
def machine(monkeypatch):
    """A made-up machine: eight cores and some GPUs."""

    def make(*gpus):
        monkeypatch.setattr("compseg.studies.slots.visible_gpus", lambda: list(gpus))
        monkeypatch.setattr("compseg.studies.slots.usable_cores", lambda: 8)
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
    assert str(slots_of(jobs, "auto")) == words
    assert os.environ["OMP_NUM_THREADS"] == words.split(", ")[1].split()[0]


def test_several_jobs_may_share_a_gpu(machine):
    machine("2", "5")
    slots = slots_of(4, "auto")
    taken = [slots.take().environment["CUDA_VISIBLE_DEVICES"] for _ in range(4)]
    assert sorted(taken) == ["2", "2", "5", "5"]
    assert slots.take() is None


def test_threads_that_are_given_stay(machine, monkeypatch):
    machine()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "3 threads each" in str(slots_of("auto", "auto"))


@pytest.mark.parametrize("jobs", [0, -1, "many", 1.5, None])
def test_a_number_of_jobs_that_is_none_is_refused(jobs):
    with pytest.raises(CompsegError, match="jobs="):
        slots_of(jobs, "auto")
