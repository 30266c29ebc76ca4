"""Pictures of studies: a sweep with a panel a swept key, a comparison with a panel a cohort; a dot is a job in both."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compseg.evaluation.names import lower_is_better
from compseg.plots.style import DISEASE, FAINT, HEALTHY, INK, OTHER, as_text, styled
from compseg.studies.plan import Layout
from compseg.studies.record import natural
from compseg.studies.scores import Contender, Outcome, Score, labels_of, ordered, ranking, scores

# Of Okabe and Ito's palette; markers tell the groups apart in grey print too.
GROUP_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
DASHES = ("--", ":", "-.")
COLUMNS = 3
# A grid has few values a key, which are spaced evenly; a random search has many, on a true axis.
FEW = 8


def png(figure: Figure) -> bytes:
    """A picture as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


@styled
def picture_of_sweep(jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> Figure:
    """The metric of each job against each swept key; lines join the medians, a ring marks the best job.

    The key with two to four values that tells most apart by name, rather than by number, is shown by colour. `jobs` are
    those whose metric is finite, the best first.
    """
    jobs = jobs.reset_index(drop=True)
    colour_key = _colour_key(jobs, keys)
    panels = [key for key in keys if key != colour_key] or ["job"]
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    # Not pyplot, which keeps a figure until it is closed, and this one is made again and again while jobs run.
    figure = Figure(figsize=(max(3.3 * columns, 5) + 0.3, 2.9 * rows + 1.1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, key in zip(grid.flat, panels, strict=False):
        _key_panel(axes, jobs, key, colour_key, rank_by)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    better = "lower" if lower_is_better(rank_by) else "higher"
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{rank_by}, {better} is better")
    best = jobs.iloc[0]
    at = ", ".join(f"{key}={best[key] or None}" for key in keys)
    title = as_text(f"{len(jobs)} jobs; best (ring): job {best['job']}, {best[rank_by]:.4g} at {at}", 1000)
    figure.suptitle(textwrap.fill(title, int(13 * figure.get_figwidth())), x=0.01, ha="left", fontsize=9.5)
    if colour_key:
        handles = grid[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower left", ncols=4, title=as_text(colour_key))
    return figure


def _colour_key(jobs: pd.DataFrame, keys: Sequence[str]) -> str | None:
    values = {key: values_of(jobs, key) for key in keys}
    few = [key for key in keys if 2 <= len(values[key]) <= len(GROUP_STYLES)]
    if len(keys) < 2 or not few:
        return None
    # Names before numbers: an axis shows the order of numbers, colours do not.
    return min(few, key=lambda key: (numeric(values[key]), len(values[key])))


def _key_panel(axes: Axes, jobs: pd.DataFrame, key: str, colour_key: str | None, rank_by: str) -> None:
    values = values_of(jobs, key)
    dense = numeric(values) and len(values) > FEW
    places = {value: float(value) if dense else float(i) for i, value in enumerate(values)}
    groups = values_of(jobs, colour_key) if colour_key else [""]
    for number, group in enumerate(groups):
        members = jobs[column_of(jobs, colour_key) == group] if colour_key else jobs
        # Side by side, or the jobs of one group would hide those of another at the same value.
        nudge = 0.0 if dense else 0.1 * (number - (len(groups) - 1) / 2)
        x = column_of(members, key).map(places) + nudge
        y = members[rank_by].astype(float)
        colour, marker = GROUP_STYLES[number]
        axes.plot(x, y, marker, color=colour, markersize=5, alpha=0.55, markeredgewidth=0, label=as_text(group) or None)
        if len(values) <= FEW:
            medians = y.groupby(x).median()
            # Names have no order that a line could follow.
            line = "-" if numeric(values) else "none"
            axes.plot(medians.index, medians, linestyle=line, marker="_", markersize=11, color=colour)
        if 0 in members.index:
            axes.plot(x[0], y[0], "o", markersize=12, markerfacecolor="none", color=INK)
    axes.set_xlabel(as_text(key))
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    if not dense:
        names = [as_text(value, 24) for value in values]
        crowded = sum(map(len, names)) > 34
        axes.set_xticks(range(len(names)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif is_wide(list(places.values())):
        axes.set_xscale("log")


def column_of(jobs: pd.DataFrame, key: str) -> pd.Series[str]:
    """What a key was in each job."""
    return jobs[key].replace("", "(unset)")


def values_of(jobs: pd.DataFrame, key: str) -> list[str]:
    """All values of a key, in their natural order."""
    return sorted(column_of(jobs, key).unique(), key=natural)


def numeric(values: Sequence[str]) -> bool:
    """Whether all values are finite numbers."""
    try:
        return all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether numbers are so far apart that a logarithmic axis shows them better."""
    return min(numbers) > 0 and max(numbers) / min(numbers) > 20


@styled
def picture_of_comparison(outcomes: Sequence[Outcome], layout: Layout) -> Figure | None:
    """A row a contender with its jobs, their mean and its interval; upper bound and baselines as lines as well.

    Rows are in the order of the overall ranking, the best on top. None as long as no job has the metric.
    """
    found = [one for one in scores(outcomes, layout.rank_by) if math.isfinite(one.mean)]
    if not found:
        return None
    rows, cohorts = _rows(found, layout), list(dict.fromkeys(one.cohort for one in found))
    columns = min(COLUMNS, len(cohorts))
    height = math.ceil(len(cohorts) / columns)
    figure = Figure(figsize=(3.2 * columns + 1.6, (0.27 * len(rows) + 0.8) * height + 0.9), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False, sharey=True)
    handles: dict[str, Artist] = {}
    for axes, cohort in zip(grid.flat, cohorts, strict=False):
        here = [one for one in found if one.cohort == cohort]
        jobs = [one for one in outcomes if one.planned.cohort == cohort and layout.rank_by in one.record.metrics]
        _cohort_panel(axes, here, jobs, rows, layout)
        axes.set_title(as_text(cohort))
        handles |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    for axes in grid.flat[len(cohorts) :]:
        axes.set_axis_off()
    names = labels_of(rows)
    grid[0, 0].set_yticks(range(len(rows)), [as_text(names[contender]) for contender in rows])
    figure.legend(list(handles.values()), list(handles), loc="outside lower left", ncols=4)
    return figure


def _rows(found: Sequence[Score], layout: Layout) -> list[Contender]:
    """Contenders in the order of the ranking; the upper bound first and the baselines last, if they take part."""
    ranked = [one.contender for one in ranking(found, layout.rank_by, layout.apart)]
    marks = [one.contender for one in ordered(found, layout.rank_by) if one.contender[1] in layout.apart]
    marks = list(dict.fromkeys(marks))
    first = [contender for contender in marks if contender[1] == layout.upper_bound]
    return [*first, *ranked, *(contender for contender in marks if contender not in first)]


def _cohort_panel(
    axes: Axes, here: Sequence[Score], jobs: Sequence[Outcome], rows: Sequence[Contender], layout: Layout
) -> None:
    for one in here:
        height = rows.index(one.contender)
        dots = [job.record.metrics[layout.rank_by] for job in jobs if job.planned.contender == one.contender]
        axes.plot(dots, [height] * len(dots), "o", color=OTHER, markersize=4, alpha=0.6, markeredgewidth=0)
        axes.plot([one.low, one.high], [height, height], color=INK, linewidth=1)
        axes.plot(one.mean, height, "|", color=INK, markersize=11, markeredgewidth=1.8)
    lines = [("upper bound", layout.upper_bound, HEALTHY, "-")]
    lines += [("baseline", name, DISEASE, DASHES[i % len(DASHES)]) for i, name in enumerate(layout.baselines)]
    for role, name, colour, dashes in lines:
        # The mean over models, where there are several.
        if means := [one.mean for one in here if one.contender[1] == name]:
            mean = float(np.mean(means))
            axes.axvline(mean, color=colour, linestyle=dashes, linewidth=1.1, label=as_text(f"{role}: {name}"))
    axes.set_xlabel(layout.rank_by)
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    axes.set_ylim(len(rows) - 0.5, -0.5)
