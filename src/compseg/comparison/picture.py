"""A comparison in one picture: a panel a cohort, a row a method, a dot a run, ceiling and floors as lines."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compseg.comparison.standings import Entrant, Outcome, Standing, ordered, places, standings
from compseg.comparison.table import Layout, labels
from compseg.plots.style import DISEASE, FAINT, HEALTHY, INK, OTHER, styled

COLUMNS = 3
DASHES = ("--", ":", "-.")


def draw(outcomes: Sequence[Outcome], layout: Layout) -> bytes | None:
    """The picture as PNG; None as long as no job has the figure."""
    stream = io.BytesIO()
    figure = picture(outcomes, layout)
    if figure is None:
        return None
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


@styled
def picture(outcomes: Sequence[Outcome], layout: Layout) -> Figure | None:
    """The picture; rows in the order of the overall ranking, the best on top."""
    found = [one for one in standings(outcomes, layout.ranked_by) if math.isfinite(one.mean)]
    rows = _rows(found, layout)
    cohorts = list(dict.fromkeys(one.cohort for one in found))
    if not found:
        return None
    columns = min(COLUMNS, len(cohorts))
    height = math.ceil(len(cohorts) / columns)
    figure = Figure(figsize=(3.2 * columns + 1.6, (0.27 * len(rows) + 0.8) * height + 0.9), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False, sharey=True)
    for axes, cohort in zip(grid.flat, cohorts, strict=False):
        _panel(axes, cohort, [one for one in found if one.cohort == cohort], rows, outcomes, layout)
    for axes in grid.flat[len(cohorts) :]:
        axes.set_axis_off()
    _name_rows(grid[0, 0], rows)
    handles = {
        name: handle for axes in grid.flat for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=4)
    return figure


def _rows(found: Sequence[Standing], layout: Layout) -> list[Entrant]:
    """Entrants in the order of the ranking; the ceiling first and the floors last, where they have a row."""
    ranked = [place.entrant for place in places(found, layout.ranked_by, layout.apart)]
    marks = [one.entrant for one in ordered(found, layout.ranked_by) if one.entrant[1] in layout.apart]
    marks = list(dict.fromkeys(marks))
    return [
        *(entrant for entrant in marks if entrant[1] == layout.ceiling),
        *ranked,
        *(entrant for entrant in marks if entrant[1] != layout.ceiling),
    ]


def _panel(
    axes: Axes,
    cohort: str,
    here: Sequence[Standing],
    rows: Sequence[Entrant],
    outcomes: Sequence[Outcome],
    layout: Layout,
) -> None:
    for one in here:
        height = rows.index(one.entrant)
        dots = _dots(outcomes, cohort, one.entrant, layout.ranked_by)
        axes.plot(dots, [height] * len(dots), "o", color=OTHER, markersize=4, alpha=0.6, markeredgewidth=0)
        axes.plot([one.low, one.high], [height, height], color=INK, linewidth=1)
        axes.plot(one.mean, height, "|", color=INK, markersize=11, markeredgewidth=1.8)
    _lines(axes, here, layout)
    axes.set_title(cohort)
    axes.set_xlabel(layout.ranked_by)
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _dots(outcomes: Sequence[Outcome], cohort: str, entrant: Entrant, figure: str) -> list[float]:
    return [
        one.figures[figure]
        for one in outcomes
        if (one.planned.cohort, one.planned.entrant) == (cohort, entrant) and figure in one.figures
    ]


def _lines(axes: Axes, here: Sequence[Standing], layout: Layout) -> None:
    """Ceiling and floors, each the mean over models where there are several."""
    views = {layout.ceiling: (HEALTHY, "-")} | {
        name: (DISEASE, DASHES[i % len(DASHES)]) for i, name in enumerate(layout.floors)
    }
    for name, (colour, dashes) in views.items():
        means = [one.mean for one in here if one.entrant[1] == name]
        if means:
            axes.axvline(
                float(np.mean(means)), color=colour, linestyle=dashes, linewidth=1.1, label=_role(name, layout)
            )


def _role(name: str, layout: Layout) -> str:
    return f"ceiling: {name}" if name == layout.ceiling else f"floor: {name}"


def _name_rows(axes: Axes, rows: Sequence[Entrant]) -> None:
    names = labels(rows)
    axes.set_yticks(range(len(rows)), [names[entrant] for entrant in rows])
