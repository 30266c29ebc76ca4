"""Table, page and picture of made-up sweeps."""

import csv
import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from compseg.errors import CompsegError
from compseg.studies import summarise
from compseg.studies.page import csv_of, rank, sweep_frame, sweep_page, warnings
from compseg.studies.pictures import picture_of_sweep
from compseg.studies.record import Record, read_records
from compseg.studies.sweep import problem_of


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_files_of_a_sweep_in_every_state(sweep):
    summarise(sweep, "val/loss")
    rows = rows_of((sweep / "sweep.csv").read_text())
    assert [row["status"] for row in rows] == ["finished", "failed", "unfinished", "finished"]
    assert [(row["model"], row["head.alpha"]) for row in rows] == [
        ("unet", "0.05"),
        ("unet", "0.1"),
        ("segnet", "0.05"),
        ("segnet", "0.1"),
    ]
    assert [row["val/loss"] for row in rows] == ["0.75", "", "", "0.25"]
    assert rows[1]["why"] == "cohort: gone | away"
    assert "trainer.max_epochs" not in rows[0]
    text = (sweep / "sweep.md").read_text()
    assert "4 jobs: 2 finished, 1 failed, 1 unfinished." in text
    assert "| 1 | [10](10/report.html) | segnet | 0.1 | 0.25 | 0.5 |" in text
    assert "| 1 | unet | 0.1 | failed | 0 | cohort: gone \\| away |" in text
    assert "ci_low" not in text
    with Image.open(sweep / "sweep.png") as image:
        assert min(image.size) > 300
        assert np.asarray(image.convert("L")).std() > 5


def test_a_sweep_that_has_just_begun_has_a_table_and_no_picture(add_job, tmp_path):
    add_job("0", ["model=unet"], "started")
    summarise(tmp_path / "sweep", "val/loss")
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["0", "sweep.csv", "sweep.md"]


def test_an_unknown_metric_writes_nothing(sweep):
    with pytest.raises(CompsegError, match="metrics: val/loss"):
        summarise(sweep, "dice")
    assert not list(sweep.glob("sweep.*"))


def test_rank_goes_the_right_way(sweep):
    jobs = read_records(sweep)
    assert [job.name for job in rank(jobs, "val/loss")] == ["10", "0"]
    assert [job.name for job in rank(jobs, "test/dice_mean")] == ["0", "10"]


def made(values, metric, name="0"):
    return Record(name, {key: str(value) for key, value in values.items()}, "finished", metrics={"val/loss": metric})


def test_what_is_no_number_comes_last():
    jobs = [made({}, math.nan, "a"), made({}, 2.0, "b"), made({}, math.inf, "c"), made({}, 1.0, "d")]
    assert [job.name for job in rank(jobs, "val/loss")][:2] == ["d", "b"]


def test_table_keeps_every_digit():
    (row,) = rows_of(csv_of(sweep_frame([made({"a": "x, y"}, 0.1 + 0.2)], ["a"])))
    assert float(row["val/loss"]) == 0.1 + 0.2
    assert row["a"] == "x, y"


def test_a_metric_that_is_no_number_is_told_from_one_that_is_missing():
    rows = rows_of(csv_of(sweep_frame([made({}, math.nan), made({}, 1, "1"), Record("2", {}, "failed")], [])))
    assert [row["val/loss"] for row in rows] == ["nan", "1", ""]


def test_the_reader_is_told_what_a_ranking_is_worth():
    assert not warnings(["model", "optimizer.lr"], "val/loss")
    (loss,) = warnings(["model", "head.alpha"], "val/loss")
    assert "head.alpha" in loss
    (test,) = warnings(["head.alpha"], "test/dice_mean")
    assert "other samples" in test
    assert loss in sweep_page("s", [], [made({}, 1.0)], ["head.alpha"], "val/loss", with_picture=False)


def test_the_last_word_names_jobs_reasons_and_the_fix(sweep):
    words = problem_of(sweep, read_records(sweep))
    assert words.startswith("2 of 4 jobs not finished: 1 (model=unet head.alpha=0.1): cohort: gone | away; ")
    assert "2 (model=segnet head.alpha=0.05): unfinished" in words
    assert f"hydra.sweep.dir={sweep} tries them again" in words


def picture(jobs, keys, rank_by):
    return picture_of_sweep(sweep_frame(jobs, keys), keys, rank_by)


GRID = {
    "head.alpha": ["0.05", "0.1", "0.2"],
    "model": ["unet", "segnet"],
    "head.beta": ["1", "5"],
    "head.gamma": ["0", "0.001"],
    "optimizer": ["adamw", "rmsprop"],
}


def grid(keys):
    cells = itertools.product(*(GRID[key] for key in keys))
    return [made(dict(zip(keys, cell, strict=True)), 1.0 + i, str(i)) for i, cell in enumerate(cells)]


def dots(axes):
    """Markers of jobs; medians and the ring have looks of their own."""
    return [line for line in axes.lines if line.get_marker() in "os^D" and line.get_markersize() == 5]


@pytest.mark.parametrize(
    ("count", "panels", "colour"),
    [(1, 1, None), (2, 1, "model"), (3, 2, "model"), (4, 3, "model"), (5, 4, "model")],
)
def test_a_panel_a_key_with_every_job(count, panels, colour):
    keys = list(GRID)[:count]
    jobs = grid(keys)
    figure = picture(jobs, keys, "val/loss")
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_xlabel() for axes in drawn] == [key for key in keys if key != colour]
    assert len(drawn) == panels
    for axes in drawn:
        heights = sorted(y for line in dots(axes) for y in line.get_ydata())
        assert heights == [job.metrics["val/loss"] for job in jobs]
        assert [label.get_text() for label in axes.get_xticklabels()] == GRID[axes.get_xlabel()]
        (ring,) = [line for line in axes.lines if line.get_markersize() == 12]
        assert list(ring.get_ydata()) == [1.0]
    assert [legend.get_title().get_text() for legend in figure.legends] == ([colour] if colour else [])
    figure.draw_without_rendering()


def test_medians_are_joined_by_a_line_for_numbers_alone():
    numbers = picture(
        [made({"head.beta": b}, f, str(f)) for b, f in ((1, 1.0), (1, 4.0), (5, 2.0))], ["head.beta"], "val/loss"
    )
    (line,) = [line for line in numbers.axes[0].lines if line.get_marker() == "_"]
    assert (list(line.get_ydata()), line.get_linestyle()) == ([2.5, 2.0], "-")
    names = picture([made({"model": m}, 1.0, m) for m in "abcde"], ["model"], "val/loss")
    (line,) = [line for line in names.axes[0].lines if line.get_marker() == "_"]
    assert line.get_linestyle() == "None"


def test_a_random_search_gets_a_true_axis():
    values = np.geomspace(1e-4, 1e-1, 12)
    figure = picture([made({"optimizer.lr": v}, 1.0 + v, str(v)) for v in values], ["optimizer.lr"], "val/loss")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(dots(axes)[0].get_xdata(), values)


def test_one_job_alone():
    (axes,) = picture([made({}, 1.0)], [], "val/loss").axes
    assert axes.get_xlabel() == "job"
