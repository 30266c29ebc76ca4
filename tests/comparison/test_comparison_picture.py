"""The picture holds every run, the means, the ceiling and the floors."""

import pytest

from compseg.comparison.picture import draw, picture
from compseg.comparison.table import Layout

LAYOUT = Layout("test", ("pixel_ap",), "supervised", ("all_ones", "single_band"))


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
    figure = picture(outcomes, LAYOUT)
    x, y = figure.axes
    assert [x.get_title(loc="left"), y.get_title(loc="left")] == ["x", "y"]
    names = [label.get_text() for label in x.get_yticklabels()]
    assert names == ["supervised", "a", "b", "all_ones"]
    dots = {round(line.get_ydata()[0]): sorted(line.get_xdata()) for line in x.lines if line.get_marker() == "o"}
    assert dots == {0: [0.9, 0.95], 1: [0.6, 0.7], 2: [0.3, 0.4], 3: [0.2, 0.2]}
    ticks = [line.get_xdata()[0] for line in x.lines if line.get_marker() == "|"]
    assert sorted(ticks) == pytest.approx([0.2, 0.35, 0.65, 0.925])


def test_ceiling_and_floors_that_take_part_are_lines(outcomes):
    figure = picture(outcomes, LAYOUT)
    lines = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines if line.get_label()[0] != "_"}
    assert lines == pytest.approx({"ceiling: supervised": 0.925, "floor: all_ones": 0.2})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ceiling: supervised", "floor: all_ones"]


def test_without_a_figure_there_is_no_picture(made):
    assert draw([made(None)], LAYOUT) is None


def test_it_is_a_png(outcomes):
    assert draw(outcomes, LAYOUT)[:8] == b"\x89PNG\r\n\x1a\n"
