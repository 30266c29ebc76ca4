"""A sweep on one page to look around in: hover, zoom, choose ranges. It holds all it needs, and opens offline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compseg.errors import CompsegError
from compseg.sweeps.jobs import Job, figure_of, lower_is_better, natural
from compseg.sweeps.picture import FEW, is_wide, numeric, value_of, values_of

COLOURS = "Viridis"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em }}
h2 {{ font-size: 1.1em; margin: 2em 0 0 }} p {{ color: #555; margin: .2em 0 }}</style></head>
<body><h1>{title}</h1><p>{states}</p>
{parts}
</body></html>
"""


def interactive_page(
    title: str, states: str, jobs: Sequence[Job], keys: Sequence[str], rank_by: str, shares: Mapping[str, float]
) -> str:
    """HTML with the history of the sweep, the importance of each key, parallel coordinates and a panel a key.

    Args:
        title: Heading.
        states: How many jobs are in which state.
        jobs: Jobs whose figure is finite, the best first.
        keys: What was swept.
        rank_by: The figure.
        shares: The importance of each key; empty where unknown.

    Raises:
        CompsegError: If Plotly is not installed.
    """
    try:
        import plotly.graph_objects as go  # type: ignore[import-untyped]
    except ImportError:
        raise CompsegError("sweep.html: plotly is not installed; pip install 'compseg[sweep]'") from None
    better = "lower" if lower_is_better(rank_by) else "higher"
    history = f"{rank_by} of each job, and the best so far; {better} is better."
    sections = [("History", history, _history(go, jobs, rank_by))]
    if shares:
        note = f"Main effects: shares of the keys in the variance of {rank_by}; the rest is interactions and chance."
        sections.append(("Importance", note, _bars(go, shares)))
    if keys:
        note = "A line a job. Drag along an axis to choose a range; drag an axis by its name to move it."
        sections.append(("Parallel coordinates", note, _parallel(go, jobs, keys, rank_by)))
    sections += [(key, "", _scatter(go, jobs, key, keys, rank_by)) for key in keys]
    parts = []
    for number, (heading, note, figure) in enumerate(sections):
        figure.update_layout(template="plotly_white", height=380, margin={"t": 40, "b": 50, "l": 70, "r": 30})
        drawn = figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"figure-{number}")
        parts.append(f"<h2>{html.escape(heading)}</h2><p>{html.escape(note)}</p>{drawn}")
    return PAGE.format(title=html.escape(title), states=html.escape(states), parts="\n".join(parts))


def _hover(jobs: Sequence[Job], keys: Sequence[str]) -> list[str]:
    return [
        "<br>".join(html.escape(f"{key} = {value_of(job, key)}") for key in ("job", *keys)) + "<extra></extra>"
        for job in jobs
    ]


def _history(go: Any, jobs: Sequence[Job], rank_by: str) -> Any:
    ordered = sorted(jobs, key=lambda job: natural(job.name))
    figures = [figure_of(job, rank_by) for job in ordered]
    best = (np.minimum if lower_is_better(rank_by) else np.maximum).accumulate(figures).tolist()
    names = [job.name for job in ordered]
    figure = go.Figure()
    figure.add_scatter(x=names, y=figures, mode="markers", name="jobs", hovertemplate=_hover(ordered, ()))
    figure.add_scatter(x=names, y=best, mode="lines", name="best so far", line={"shape": "hv"})
    return figure.update_xaxes(title="job", type="category").update_yaxes(title=rank_by)


def _bars(go: Any, shares: Mapping[str, float]) -> Any:
    keys, values = list(shares), list(shares.values())
    figure = go.Figure(go.Bar(x=values[::-1], y=keys[::-1], orientation="h", texttemplate="%{x:.2f}"))
    return figure.update_xaxes(title="share", range=[0, 1])


def _parallel(go: Any, jobs: Sequence[Job], keys: Sequence[str], rank_by: str) -> Any:
    figures = [figure_of(job, rank_by) for job in jobs]
    line = {"color": figures, "colorscale": COLOURS, "reversescale": lower_is_better(rank_by), "showscale": True}
    dimensions = [_dimension(jobs, key) for key in keys]
    return go.Figure(go.Parcoords(dimensions=[*dimensions, {"label": rank_by, "values": figures}], line=line))


def _dimension(jobs: Sequence[Job], key: str) -> dict[str, Any]:
    values = values_of(jobs, key)
    if len(values) <= FEW or not numeric(values):
        places = [values.index(value_of(job, key)) for job in jobs]
        return {"label": key, "values": places, "tickvals": list(range(len(values))), "ticktext": values}
    numbers = [float(value_of(job, key)) for job in jobs]
    if not is_wide(numbers):
        return {"label": key, "values": numbers}
    ticks = np.geomspace(min(numbers), max(numbers), 5)
    return {
        "label": key,
        "values": np.log10(numbers).tolist(),
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"{tick:.2g}" for tick in ticks],
    }


def _scatter(go: Any, jobs: Sequence[Job], key: str, keys: Sequence[str], rank_by: str) -> Any:
    values = values_of(jobs, key)
    figures = [figure_of(job, rank_by) for job in jobs]
    figure = go.Figure(go.Scatter(x=[value_of(job, key) for job in jobs], y=figures, mode="markers"))
    figure.update_traces(hovertemplate=_hover(jobs, keys), marker={"size": 9, "opacity": 0.7})
    figure.update_yaxes(title=rank_by)
    if len(values) <= FEW or not numeric(values):
        return figure.update_xaxes(title=key, type="category", categoryorder="array", categoryarray=values)
    return figure.update_xaxes(title=key, type="log" if is_wide([float(value) for value in values]) else "linear")
