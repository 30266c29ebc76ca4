"""Jobs start when there is room for them, all end when the study does, and their records say how."""

from pathlib import Path

import pytest

from compseg.studies.record import read_record, write_record
from compseg.studies.runner import OUTPUT, Job, run_jobs, without_ranks
from compseg.studies.slots import Slots


class Fake:
    """A job that ends after so many looks, or when it is stopped."""

    def __init__(self, job, views, world):
        self.job, self.views, self.world, self.stops = job, views, world, []
        world.append(self)

    def ended(self):
        self.views -= 1
        return self.views < 0 or bool(self.stops)

    def stop(self, *, at_once=False):
        self.stops.append(at_once)


class World(list):
    """Where fake jobs run: `views` says how long each takes, by name."""

    def __init__(self, places, views, kind=Fake):
        self.places, self.views, self.kind = places, views, kind

    def has_room(self):
        return sum(job.views >= 0 for job in self) < self.places

    def start(self, job):
        return self.kind(job, self.views[job.folder.name], self)


def jobs_of(names):
    return [Job(Path(name), (), ()) for name in names]


def names_of(jobs):
    return [job.folder.name for job in jobs]


def test_in_order_and_no_more_than_there_is_room_for():
    most = []

    class Counted(World):
        def start(self, job):
            begun = super().start(job)
            most.append(sum(job.views >= 0 for job in self))
            return begun

    world = Counted(2, {"a": 5, "b": 1, "c": 1, "d": 0})
    ended = names_of(run_jobs(jobs_of("abcd"), world, pause=0))
    assert names_of(one.job for one in world) == ["a", "b", "c", "d"]
    assert sorted(ended) == ["a", "b", "c", "d"]
    assert ended[0] == "b"
    assert max(most) == 2


def test_a_job_is_taken_only_when_it_can_know_what_came_before():
    ended, known = [], []

    def jobs():
        for job in jobs_of("abc"):
            known.append(len(ended))
            yield job

    for job in run_jobs(jobs(), World(1, dict.fromkeys("abc", 2)), pause=0):
        ended.append(job)
    assert known == [0, 1, 2]


def test_a_job_for_which_there_is_too_little_room_waits_and_is_not_overtaken():
    refusals, need = [], {"a": 2, "big": 3, "c": 1}

    class Choosy(World):
        def has_room(self):
            return True

        def start(self, job):
            name = job.folder.name
            free = 3 - sum(2 if names_of([one.job]) == ["a"] else 1 for one in self if one.views >= 0)
            if need[name] > free:
                refusals.append(name)
                return None
            return super().start(job)

    jobs = jobs_of(["a", "big", "c"])
    ended = names_of(run_jobs(jobs, Choosy(3, {"a": 3, "big": 0, "c": 0}), pause=0))
    assert ended == ["a", "big", "c"]
    assert set(refusals) >= {"big"}


def test_a_finished_job_is_handed_over_without_being_started():
    world = World(1, {"a": 1, "c": 1})
    ended = names_of(run_jobs(jobs_of("abc"), world, lambda job: job.folder.name == "b", pause=0))
    assert ended == ["a", "b", "c"]
    assert names_of(one.job for one in world) == ["a", "c"]


def test_a_caller_that_leaves_stops_what_is_running():
    world = World(2, {"a": 10**9, "b": 0})

    def interrupted():
        for _ in run_jobs(jobs_of("ab"), world, pause=0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [job.stops for job in world] == [[False], []]


def test_what_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr("compseg.studies.runner.PATIENCE", 0.05)

    class Stubborn(Fake):
        def ended(self):
            return self.job.folder.name != "a" and super().ended()

    world = World(2, {"a": 9, "b": 0}, Stubborn)
    running = run_jobs(jobs_of("ab"), world)
    next(running)
    running.close()
    assert world[0].stops == [False, True]


def test_forked_jobs_end_well_and_fail(tmp_path, trained, monkeypatch):
    """Three real processes: one that succeeds, one with an error of the user, one that cannot start."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    commands = {
        "good": ("compseg.check", f"cohort={trained.cohort}"),
        "bad": ("compseg.check", f"cohort={tmp_path / 'absent.zarr'}"),
        "unknown": ("compseg.nothing",),
    }
    jobs = [Job(tmp_path / name, (), ("-m", *command)) for name, command in commands.items()]
    list(run_jobs(jobs, Slots(2, "cpu", fork=True)))
    ended = {name: read_record(tmp_path / name) for name in commands}
    assert {name: one.status for name, one in ended.items()} == {
        "good": "finished",
        "bad": "failed",
        "unknown": "failed",
    }
    assert ended["good"].why == ""
    assert ended["bad"].why.startswith(f"{tmp_path / 'absent.zarr'}: no such cohort")
    assert "No module named compseg.nothing" in ended["unknown"].why
    assert all(one.seconds > 0 for one in ended.values())
    assert (tmp_path / "good" / OUTPUT).read_text()


PROGRAM = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "metrics.json").write_text('{"test/pixel_ap": 0.5}')
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize(("end", "status"), [("0", "finished"), ("143", "finished"), ("1", "failed")])
def test_a_run_that_is_only_evaluated_stays_a_trained_one_unless_that_fails(tmp_path, end, status):
    folder = tmp_path / "run"
    write_record(folder, ["seed=1"], "finished", "", 12.5)
    list(run_jobs([Job(folder, ("seed=1",), ("-c", PROGRAM, str(folder), end), trains=False)], Slots(1, "cpu")))
    record = read_record(folder)
    assert (record.status, record.seconds) == (status, 12.5)


def test_an_earlier_problem_is_not_that_of_this_try(tmp_path):
    for program in ("import sys; sys.exit('compseg train: no cohort')", "import sys; sys.exit(3)"):
        list(run_jobs([Job(tmp_path, (), ("-c", program))], Slots(1, "cpu")))
    assert read_record(tmp_path).why == "exit code 3"
    assert "no cohort" in (tmp_path / OUTPUT).read_text()


def test_the_job_does_not_take_itself_for_a_rank():
    ranks = dict.fromkeys(
        ["LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "SLURM_NTASKS"], "1"
    )
    kept = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    assert without_ranks({**ranks, **kept}) == kept
