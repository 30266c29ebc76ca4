"""What is seen of a comparison while it runs."""

import io

import pytest
from rich.console import Console

from compseg.comparison.progress import Progress

FIGURE = "test/pixel_ap"


@pytest.fixture
def outcomes(made):
    jobs = [made(None, method="a"), made(None, method="b", seed=1), made(None, method="a", cohort="d")]
    return {one.planned.name: one for one in jobs}


def test_a_line_a_job_in_a_log_file(outcomes, made, capsys):
    with Progress(outcomes, FIGURE) as progress:
        progress.show(made(0.5, method="a"), 130.0)
        progress.show(made(0.5, method="b", seed=1, status="failed", why="disk full"), None)
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] c/m/a/seed_0: test/pixel_ap 0.500, 10 s; about 2 min left",
        "[2/3] c/m/b/seed_1: failed: disk full, 10 s",
    ]


def test_a_table_on_a_terminal(outcomes, made):
    progress = Progress(outcomes, FIGURE)
    for one in (made(0.5, method="a"), made(0.25, method="b", seed=1, status="failed")):
        progress.outcomes[one.planned.name] = one
    screen = Console(file=io.StringIO(), width=90)
    screen.print(progress._table(42.0))
    lines = [line.strip() for line in screen.file.getvalue().splitlines()]
    assert lines[0] == FIGURE
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]
    assert ["method", "c", "d"] in cells
    assert ["a", "0.500  1/1", "0/1"] in cells
    assert ["b", "0/1, 1 failed", "0/0"] in cells
    assert "[2/3] jobs; about 42 s left" in lines[-1]
