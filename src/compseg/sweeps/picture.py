"""A sweep in one picture: a panel a swept key, a dot a job."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compseg.plots.style import FAINT, INK, styled
from compseg.sweeps.jobs import Job, figure_of, lower_is_better, natural

# Of Okabe and Ito's palette; markers tell the groups apart in grey print too.
GROUP_LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
# A grid has few values a key and its places are evenly apart; a random search has many, on a true axis.
FEW = 8


@styled
def picture(jobs: Sequence[Job], keys: Sequence[str], rank_by: str) -> Figure:
    """The figure of each job against each swept key; lines join the medians, a ring marks the best job.

    The key with two to four values that tells most apart by name, rather than by number, is shown by colour.

    Args:
        jobs: Jobs whose figure is finite, the best first.
        keys: What was swept.
        rank_by: The figure.
    """
    colour_key = _colour_key(jobs, keys)
    panels = [key for key in keys if key != colour_key] or ["job"]
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(3.3 * columns, 5) + 0.3, 2.9 * rows + 1.1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, key in zip(grid.flat, panels, strict=False):
        _panel(axes, jobs, key, colour_key, rank_by)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    better = "lower" if lower_is_better(rank_by) else "higher"
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{rank_by}, {better} is better")
    figure.suptitle(
        textwrap.fill(_title(jobs, keys, rank_by), int(13 * figure.get_figwidth())), x=0.01, ha="left", fontsize=9.5
    )
    if colour_key:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, title=colour_key)
    return figure


def _title(jobs: Sequence[Job], keys: Sequence[str], rank_by: str) -> str:
    best = jobs[0]
    values = ", ".join(f"{key}={best.overrides.get(key)}" for key in keys)
    return f"{len(jobs)} jobs; best (ring): job {best.name}, {figure_of(best, rank_by):.4g} at {values}"


def _colour_key(jobs: Sequence[Job], keys: Sequence[str]) -> str | None:
    counts = {key: len(values_of(jobs, key)) for key in keys}
    few = [key for key in keys if 2 <= counts[key] <= len(GROUP_LOOKS)]
    if len(keys) < 2 or not few:
        return None
    return min(few, key=lambda key: (numeric(values_of(jobs, key)), counts[key]))


def _panel(axes: Axes, jobs: Sequence[Job], key: str, colour_key: str | None, rank_by: str) -> None:
    values = values_of(jobs, key)
    dense = numeric(values) and len(values) > FEW
    places = {value: float(value) if dense else float(i) for i, value in enumerate(values)}
    groups = values_of(jobs, colour_key) if colour_key else [""]
    for number, group in enumerate(groups):
        members = [job for job in jobs if not colour_key or value_of(job, colour_key) == group]
        nudge = 0.0 if dense else 0.1 * (number - (len(groups) - 1) / 2)
        _group(axes, members, key, {value: place + nudge for value, place in places.items()}, rank_by, number, group)
        if jobs[0] in members:
            best = places[value_of(jobs[0], key)] + nudge
            axes.plot(best, figure_of(jobs[0], rank_by), "o", markersize=12, markerfacecolor="none", color=INK)
    axes.set_xlabel(key)
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    if not dense:
        _name_places(axes, values)
    elif is_wide(list(places.values())):
        axes.set_xscale("log")


def _group(
    axes: Axes, jobs: Sequence[Job], key: str, places: dict[str, float], rank_by: str, number: int, name: str
) -> None:
    colour, marker = GROUP_LOOKS[number]
    x = [places[value_of(job, key)] for job in jobs]
    y = [figure_of(job, rank_by) for job in jobs]
    axes.plot(x, y, marker, color=colour, markersize=5, alpha=0.55, markeredgewidth=0, label=name or None)
    if len(places) <= FEW:
        present = [value for value in places if places[value] in x]
        medians = [np.median([b for a, b in zip(x, y, strict=True) if a == places[value]]) for value in present]
        # Names have no order that a line could follow.
        look = "-" if numeric(list(places)) else "none"
        axes.plot(
            [places[value] for value in present], medians, linestyle=look, marker="_", markersize=11, color=colour
        )


def _name_places(axes: Axes, values: Sequence[str]) -> None:
    names = [textwrap.shorten(value, 24, placeholder="...") for value in values]
    crowded = sum(map(len, names)) > 34
    axes.set_xticks(range(len(names)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlim(-0.5, len(names) - 0.5)


def value_of(job: Job, key: str) -> str:
    """What a key was in a job; the key `job` is the job's name."""
    return job.name if key == "job" else job.overrides.get(key, "(unset)")


def values_of(jobs: Sequence[Job], key: str) -> list[str]:
    """All values of a key, in their natural order."""
    return sorted({value_of(job, key) for job in jobs}, key=natural)


def numeric(values: Sequence[str]) -> bool:
    """Whether all values are finite numbers."""
    try:
        return all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether numbers are so far apart that a logarithmic axis shows them better."""
    return min(numbers) > 0 and max(numbers) / min(numbers) > 20
