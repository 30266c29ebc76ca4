"""What people and programs read of a comparison."""

import csv
import io
import json
import re

import numpy as np
import pytest

from compseg.files import from_cell
from compseg.studies.comparison_page import comparison_frame, comparison_page, write_comparison_html
from compseg.studies.page import csv_of
from compseg.studies.pictures import picture_of_comparison, png
from compseg.studies.plan import Layout

LAYOUT = Layout("test", ("pixel_ap", "dice_mean"), "supervised", ("all_ones",))


PICTURED = Layout("test", ("pixel_ap",), "supervised", ("all_ones", "single_band"))


def table(outcomes, split):
    return csv_of(comparison_frame(outcomes, split))


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_a_job_in_full_precision(made):
    rows = rows_of(
        table([made(1 / 3, seed=4), made(None, seed=5), made(0.5, seed=6, status="failed", why="x, y")], "test")
    )
    assert [row["status"] for row in rows] == ["finished", "waiting", "failed"]
    assert float(rows[0]["test/pixel_ap"]) == 1 / 3
    assert {key: rows[0][key] for key in ("cohort", "model", "method", "seed", "held_out", "seconds")} == {
        "cohort": "c",
        "model": "m",
        "method": "a",
        "seed": "4",
        "held_out": "",
        "seconds": "10.0",
    }
    assert rows[1]["test/pixel_ap"] == ""
    assert rows[2]["why"] == "x, y"


def test_with_split_val_no_test_metric_is_shown(made):
    outcomes = [made(0.8125)]
    layout = Layout("val", ("pixel_ap",), "supervised", ())
    assert "test/pixel_ap" not in rows_of(table(outcomes, "val"))[0]
    text = comparison_page("name", outcomes, layout, with_picture=False)
    assert "0.406" in text
    assert "0.812" not in text
    assert "Metrics of validation samples" in text


def cells(text, start):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith(start)
    ]


def test_the_page_ranks_beside_upper_bound_and_baseline(made):
    outcomes = [
        made(value, method=method, seed=seed, replicates=[value], **{"test/dice_mean": value / 2})
        for method, values in {
            "a": (0.5, 0.6),
            "b": (0.8, 0.9),
            "supervised": (1.0, 1.0),
            "all_ones": (0.2, 0.2),
        }.items()
        for seed, value in enumerate(values)
    ]
    text = comparison_page("first", outcomes, LAYOUT, with_picture=True)
    assert "# Comparison first\n\n8 jobs: 8 finished." in text
    assert "![](comparison.png)" in text
    assert "## Overall" not in text  # one cohort
    table = cells(text[text.index("## c\n") :], "| ")
    assert table[0] == ["rank", "method", "seeds", "pixel_ap", "to the best", "of the upper bound", "dice_mean"]
    assert [row[:3] for row in table[2:]] == [
        ["upper bound", "supervised", "2/2"],
        ["1", "b", "2/2"],
        ["2", "a", "2/2"],
        ["baseline", "all_ones", "2/2"],
    ]
    assert table[3][3] == "0.850 ± 0.071 [0.800, 0.900]"
    assert table[3][4:] == ["", "85 %", "0.425 ± 0.035"]
    assert table[4][4] == "-0.300 [-0.300, -0.300]"  # each draw of a seed is the same for both
    assert table[2][4].startswith("+0.150 [")


def test_several_cohorts_and_models_get_an_overall_ranking(made):
    outcomes = [
        made(value, cohort=cohort, method=method, model=model)
        for cohort, model, method, value in (
            ("x", "m", "a", 0.5),
            ("x", "n", "a", 0.6),
            ("y", "m", "a", 0.4),
            ("y", "n", "a", 0.9),
        )
    ]
    text = comparison_page("name", outcomes, LAYOUT, with_picture=False)
    overall = cells(text[text.index("## Overall") : text.index("## x\n")], "| ")
    assert overall[0] == ["rank", "method", "mean rank", "x", "y"]
    assert overall[2:] == [["1", "a, n", "1.00", "1", "1"], ["2", "a, m", "2.00", "2", "2"]]


def test_left_out_groups_and_failures_have_tables(made):
    outcomes = [
        made(0.25, held_out="A"),
        made(0.75, held_out="B"),
        made(0.1, held_out="B", method="b", status="failed", why="out | of memory"),
    ]
    text = comparison_page("name", outcomes, LAYOUT, with_picture=False)
    assert ["1", "a", "1/1", "0.500", ""] in cells(text, "| 1 ")
    assert ["c", "A", "a", "1/1", "0.250"] in cells(text, "| c ")
    assert "| c/m/b/without_B/seed_0 | out \\| of memory |" in text


@pytest.fixture
def outcomes(made):
    values = {"b": (0.3, 0.4), "a": (0.6, 0.7), "supervised": (0.9, 0.95), "all_ones": (0.2, 0.2)}
    return [
        made(value, cohort=cohort, method=method, seed=seed, replicates=[value - 0.05, value + 0.05])
        for cohort in "xy"
        for method, row in values.items()
        for seed, value in enumerate(row)
    ]


def test_a_dot_a_run_in_the_row_of_its_method(outcomes):
    figure = picture_of_comparison(outcomes, PICTURED)
    x, y = figure.axes
    assert [x.get_title(loc="left"), y.get_title(loc="left")] == ["x", "y"]
    names = [label.get_text() for label in x.get_yticklabels()]
    assert names == ["supervised", "a", "b", "all_ones"]
    dots = {round(line.get_ydata()[0]): sorted(line.get_xdata()) for line in x.lines if line.get_marker() == "o"}
    assert dots == {0: [0.9, 0.95], 1: [0.6, 0.7], 2: [0.3, 0.4], 3: [0.2, 0.2]}
    ticks = [line.get_xdata()[0] for line in x.lines if line.get_marker() == "|"]
    assert sorted(ticks) == pytest.approx([0.2, 0.35, 0.65, 0.925])


def test_upper_bound_and_baselines_that_take_part_are_lines(outcomes):
    figure = picture_of_comparison(outcomes, PICTURED)
    lines = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines if line.get_label()[0] != "_"}
    assert lines == pytest.approx({"upper bound: supervised": 0.925, "baseline: all_ones": 0.2})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "upper bound: supervised",
        "baseline: all_ones",
    ]


def test_without_the_metric_there_is_no_picture(made):
    assert picture_of_comparison([made(None)], PICTURED) is None


def test_it_is_a_png(outcomes):
    assert png(picture_of_comparison(outcomes, PICTURED))[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_groups_may_have_any_name(made):
    groups = [r"$\frac{$", "=1+1", "a|b", "<script>", "a\nb", "\x1b[31m"]
    outcomes = [made(0.5, held_out=group, method=method) for group in groups for method in (r"$\frac{$", "b")]
    assert png(picture_of_comparison(outcomes, LAYOUT))
    rows = rows_of(table(outcomes, "test"))
    assert [from_cell(row["held_out"]) for row in rows] == [group for group in groups for _ in range(2)]
    assert not any(row["held_out"].startswith("=") for row in rows)
    text = comparison_page("name", outcomes, LAYOUT, with_picture=False)
    assert " <script>" not in text
    lines = text[text.index("## Left-out groups") :].strip().splitlines()[2:]
    assert len(lines) == 2 + len(outcomes)
    assert all(line.isprintable() for line in lines)


def test_the_page_to_look_around_in_holds_every_run_and_table(made, tmp_path):
    spread = np.linspace(0.4, 0.6, 1000)
    outcomes = [
        made(0.5 + 0.1 * seed, seed=seed, method=method, replicates=spread)
        for seed in (0, 1)
        for method in ("a", "<b>")
    ]
    outcomes += [made(0.9, method="supervised"), made(None, seed=5), made(0.1, seed=6, status="failed", why="x & y")]
    run = tmp_path / "comparison" / outcomes[0].planned.name
    (run / "report.html").touch()
    path = write_comparison_html(tmp_path / "comparison" / "comparison.html", outcomes, LAYOUT)
    raw = path.read_text(encoding="utf-8")
    assert len(raw) < 1.5e6
    (chart,) = json.loads(re.search(r'id="data">(.*?)</script>', raw, re.DOTALL)[1])["charts"].values()
    ranges, runs, means = chart["series"]
    assert len(runs["x"]) == 6
    assert means["x"][0] == pytest.approx(0.9)  # the best on top
    assert len(ranges["x"]) == len(chart["y"]["names"]) == 3
    assert raw.count("c/m/a/seed_0/report.html") == 2  # in the table and in the chart
    assert "&lt;b&gt;" in raw
    assert "x &amp; y" in raw
    assert "upper bound" in raw
