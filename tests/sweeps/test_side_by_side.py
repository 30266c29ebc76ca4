"""Jobs start as there is room, and all end when the sweep does."""

import pytest

from compseg.sweeps.side_by_side import side_by_side


class Fake:
    """Ends after so many looks, or when it is stopped."""

    def __init__(self, name, views, world):
        self.name, self.views, self.world, self.stops = name, views, world, []
        world.append(self)

    def ended(self):
        self.views -= 1
        return self.views < 0 or bool(self.stops)

    def stop(self, *, at_once=False):
        self.stops.append(at_once)


def room(world, places):
    return lambda: sum(job.views >= 0 for job in world) < places


def test_in_order_and_no_more_than_there_is_room_for():
    world, most = [], []

    def start(job):
        begun = Fake(*job, world)
        most.append(sum(job.views >= 0 for job in world))
        return begun

    jobs = [("a", 5), ("b", 1), ("c", 1), ("d", 0)]
    ended = [job.name for job in side_by_side(jobs, room(world, 2), start, pause=0)]
    assert [job.name for job in world] == ["a", "b", "c", "d"]
    assert sorted(ended) == ["a", "b", "c", "d"]
    assert ended[0] == "b"
    assert max(most) == 2


def test_a_job_is_taken_only_when_it_can_know_what_came_before():
    world, known = [], []

    def jobs():
        for name in "abc":
            known.append(len(ended))
            yield name, 2

    ended = []
    for job in side_by_side(jobs(), room(world, 1), lambda job: Fake(*job, world), pause=0):
        ended.append(job.name)
    assert known == [0, 1, 2]


def test_a_job_for_which_there_is_too_little_room_waits_and_is_not_overtaken():
    world, refusals = [], []

    def start(job):
        name, views, need = job
        free = 3 - sum(2 if job.name == "a" else 1 for job in world if job.views >= 0)
        if need > free:
            refusals.append(name)
            return None
        return Fake(name, views, world)

    jobs = [("a", 3, 2), ("big", 0, 3), ("c", 0, 1)]
    ended = [job.name for job in side_by_side(jobs, lambda: True, start, pause=0)]
    assert ended == ["a", "big", "c"]
    assert set(refusals) >= {"big"}


def test_whoever_leaves_stops_what_is_running():
    world = []

    def interrupted():
        for _ in side_by_side([("a", 10**9), ("b", 0)], room(world, 2), lambda job: Fake(*job, world), pause=0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [job.stops for job in world] == [[False], []]


def test_what_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr("compseg.sweeps.side_by_side.PATIENCE", 0.05)
    world = []

    class Stubborn(Fake):
        def ended(self):
            return False

    running = side_by_side(
        [("a", 9), ("b", 0)], room(world, 2), lambda job: (Fake, Stubborn)[job[0] == "a"](*job, world)
    )
    next(running)
    running.close()
    assert world[0].stops == [False, True]
