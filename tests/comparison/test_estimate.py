"""How long a comparison will take."""

import pytest

from compseg.comparison.estimate import Estimates, epoch_seconds, in_words
from compseg.comparison.plan import Planned


def job(cohort="c", model="m", method="a", seed=0):
    return Planned(cohort, model, method, seed, "", ())


def test_the_nearest_knowledge_counts():
    known = Estimates({("c", "m"): 30.0})
    assert known.of(job()) == 30
    assert known.of(job(model="n")) is None
    known.add(job(method="a"), 10)
    known.add(job(method="a", seed=1), 20)
    assert known.of(job(method="a", seed=2)) == 15  # of its own method
    assert known.of(job(method="b")) == 30  # the trial's
    later = Estimates()
    later.add(job(method="a"), 12)
    assert later.of(job(method="b")) == 12  # of another method


def test_what_is_left_is_shared_out_among_those_at_work():
    known = Estimates({("c", "m"): 10.0, ("d", "m"): 100.0})
    jobs = [job(seed=seed) for seed in range(6)]
    assert known.left(jobs, 1) == 60
    assert known.left(jobs, 3) == 20
    assert known.left([*jobs, job(cohort="d")], 8) == 100  # never less than the longest
    assert known.left([], 2) == 0
    assert known.left([*jobs, job(cohort="e")], 2) is None


def test_epochs_are_read_from_the_history(tmp_path):
    path = tmp_path / "history.csv"
    assert epoch_seconds(path) == []
    path.write_text("epoch,val/loss,seconds\n0,0.5,1.25\n1,0.4,1.5\n")
    assert epoch_seconds(path) == [1.25, 1.5]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"), (86_000, "23 h 53 min")],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
