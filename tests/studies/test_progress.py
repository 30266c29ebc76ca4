"""What is seen of a comparison while it runs, and how long it will take."""

import io

import pytest
from rich.console import Console

from compseg.log import in_words
from compseg.run_folder import read_history
from compseg.studies.countdown import Countdown
from compseg.studies.plan import Planned
from compseg.studies.progress import Eta, Progress

METRIC = "test/pixel_ap"


@pytest.fixture
def outcomes(made):
    return [made(None, method="a"), made(None, method="b", seed=1), made(None, method="a", cohort="d")]


def test_a_line_a_job_in_a_log_file(outcomes, made, capsys):
    with Progress(outcomes, METRIC) as progress:
        progress.show(made(0.5, method="a"), 130.0)
        progress.show(made(0.5, method="b", seed=1, status="failed", why="disk full"), None)
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] c/m/a/seed_0: test/pixel_ap 0.500, 10 s; about 2 min left",
        "[2/3] c/m/b/seed_1: failed: disk full, 10 s",
    ]


def test_a_table_on_a_terminal(outcomes, made):
    progress = Progress(outcomes, METRIC, 42.2)
    for one in (made(0.5, method="a"), made(0.25, method="b", seed=1, status="failed")):
        progress.outcomes[one.planned.name] = one
    screen = Console(file=io.StringIO(), width=90)
    screen.print(progress.table())
    lines = [line.strip() for line in screen.file.getvalue().splitlines()]
    assert lines[0] == METRIC
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]
    assert ["method", "c", "d"] in cells
    assert ["a", "0.500  1/1", "0/1"] in cells
    assert ["b", "0/1, 1 failed", "0/0"] in cells
    assert "[2/3] jobs in 0:00:00; about 42 s left" in " ".join(lines[-2:])


def job(cohort="c", model="m", method="a", seed=0):
    return Planned(cohort, model, method, seed, "", ())


def test_the_nearest_knowledge_counts():
    known = Eta({("c", "m"): 30.0})
    assert known.of(job()) == 30
    assert known.of(job(model="n")) is None
    known.add(job(method="a"), 10)
    known.add(job(method="a", seed=1), 20)
    assert known.of(job(method="a", seed=2)) == 15  # of its own method
    assert known.of(job(method="b")) == 30  # the trial's
    later = Eta()
    later.add(job(method="a"), 12)
    assert later.of(job(method="b")) == 12  # of another method


def test_what_is_left_is_shared_out_among_those_at_work():
    known = Eta({("c", "m"): 10.0, ("d", "m"): 100.0})
    jobs = [job(seed=seed) for seed in range(6)]
    assert known.left(jobs, 1) == 60
    assert known.left(jobs, 3) == 20
    assert known.left([*jobs, job(cohort="d")], 8) == 100  # never less than the longest
    assert known.left([], 2) == 0
    assert known.left([*jobs, job(cohort="e")], 2) is None


def test_epochs_are_read_from_the_history(tmp_path):
    path = tmp_path / "history.csv"
    assert [float(row["seconds"]) for row in read_history(tmp_path)] == []
    path.write_text("epoch,val/loss,seconds\n0,0.5,1.25\n1,0.4,1.5\n")
    assert [float(row["seconds"]) for row in read_history(tmp_path)] == [1.25, 1.5]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"), (86_000, "23 h 53 min")],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_sweep_counts_its_jobs_down(monkeypatch):
    clock = iter([0.0, 60.0, 130.0, 180.0])
    monkeypatch.setattr("compseg.studies.countdown.time.monotonic", lambda: next(clock))
    countdown = Countdown(3)
    assert countdown.one_more() == "1 of 3 jobs, about 2 min left"
    assert countdown.one_more() == "2 of 3 jobs, about 65 s left"
    assert countdown.one_more() == "3 of 3 jobs"
