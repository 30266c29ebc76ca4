"""The rule by which jobs share a machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.sweeps.machine import Machine, device_count, visible_gpus


@pytest.fixture(autouse=True)
def no_threads_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_gpu_belongs_to_one_job():
    machine = Machine(gpus=["0", "1", "2", "3", "4"], cores=20)
    shares = [machine.take(2), machine.take(2)]
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0,1", "2,3"]
    assert {share.environment["OMP_NUM_THREADS"] for share in shares} == {"4"}
    assert machine.has_room()
    assert machine.take(2) is None
    shares[0].give_back()
    assert machine.take(3).environment["CUDA_VISIBLE_DEVICES"] == "4,0,1"


def test_without_gpus_a_process_has_a_core():
    machine = Machine(gpus=[], cores=5)
    assert machine.take(2).environment == {"OMP_NUM_THREADS": "1"}
    assert machine.take(2) is not None
    assert machine.take(2) is None
    assert machine.take(1) is not None
    assert not machine.has_room()


def test_fewer_jobs_have_more_cores():
    machine = Machine(jobs=2, gpus=[], cores=16)
    assert machine.take(1).environment == {"OMP_NUM_THREADS": "8"}
    assert Machine(jobs=2, gpus=[], cores=16).take(4).environment == {"OMP_NUM_THREADS": "2"}
    machine.take(1)
    assert machine.take(1) is None


def test_jobs_on_the_cpu_leave_gpus_alone():
    machine = Machine(accelerator="cpu", gpus=["0"], cores=2)
    assert "CUDA_VISIBLE_DEVICES" not in machine.take().environment


def test_threads_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Machine(gpus=[], cores=8).take().environment == {}


def test_a_job_that_wants_more_than_there_is_gets_all():
    machine = Machine(gpus=[], cores=2)
    assert len(machine.take(8).taken) == 2
    assert machine.take(1) is None


@given(st.integers(1, 9), st.lists(st.integers(1, 5), max_size=30), st.none() | st.integers(1, 4))
def test_nothing_is_given_out_twice_and_all_comes_back(cores, wishes, jobs):
    machine, held = Machine(jobs, gpus=[], cores=cores), []
    for wish in wishes:
        if (share := machine.take(wish)) is None:
            while held:
                held.pop().give_back()
            share = machine.take(wish)
        held.append(share)
        taken = [unit for share in held for unit in share.taken]
        assert len(taken) == len(set(taken)) <= cores
        assert len(held) <= (jobs or cores)
    for share in held:
        share.give_back()
    assert len(machine.free) == cores


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (4, 4), ("auto", 1), ("2", 2), ("0,2,3", 3), ([0, 1], 2), (-1, 1)]
)
def test_devices_are_counted(devices, count):
    assert device_count(devices) == count


def test_gpus_keep_the_names_that_the_user_gave(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, 5"}) == ["3", "5"]
    assert visible_gpus({}) == ["0", "1"]
