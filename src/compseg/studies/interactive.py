"""A sweep on one page to look around in, and the importance of each key.

Optuna 5.0 has both, but its analysis of variance rests on bootstrapped trees: to the two keys of a 2 x 2 grid whose
effect is an interaction alone it gives .38 and .35, where plain analysis of variance gives 0; and its parallel
coordinates have no axes to drag. So both are here.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.evaluation.names import lower_is_better
from compseg.studies.pictures import FEW, column_of, is_wide, numeric, values_of
from compseg.studies.record import natural

if TYPE_CHECKING:
    import pandas as pd

Predict = Callable[[NDArray[np.float64]], NDArray[np.float64]]

ENOUGH = 4  # with fewer jobs there is nothing to tell apart
COLOURS = "Viridis"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em }}
h2 {{ font-size: 1.1em; margin: 2em 0 0 }} p {{ color: #555; margin: .2em 0 }}</style></head>
<body><h1>{title}</h1><p>{states}</p>
{parts}
</body></html>
"""


def importance(jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> dict[str, float]:
    """The main effect of each key: its share in the variance of a metric.

    As in functional analysis of variance (Hutter, Hoos and Leyton-Brown, ICML 2014): a forest of random trees that
    passes through every job gives the mean metric that a value of a key would have had with the other keys of every
    job; the
    variance of these means over the jobs, divided by that of the metric, is the share. For a full grid that is plain
    analysis of variance, and the shares add up to 1 less the interactions. For a search, which crowds where it is good,
    they are estimates.

    Returns:
        The share of each key in [0, 1], the largest first; empty where jobs or differences are too few to tell.

    Raises:
        CompsegError: If scikit-learn is not installed.
    """
    metric = jobs[rank_by].to_numpy(dtype=float)
    if len(jobs) < ENOUGH or not keys or not np.ptp(metric):
        return {}
    try:
        from sklearn.ensemble import ExtraTreesRegressor  # type: ignore[import-untyped]
    except ImportError:
        raise CompsegError("importance: scikit-learn is not installed; pip install 'compseg[sweep]'") from None
    columns = {key: _encoded(jobs, key) for key in keys}
    # These trees see every job. Bootstrapped ones see a grid with gaps, and give keys whose effect is an interaction
    # alone .38 and .35 in place of 0.
    forest = ExtraTreesRegressor(n_estimators=100, random_state=0).fit(np.hstack(list(columns.values())), metric)
    shares = {key: _main_effect(forest.predict, columns, key) / float(metric.var()) for key in keys}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _encoded(jobs: pd.DataFrame, key: str) -> NDArray[np.float64]:
    """Numbers by rank, so that their scale does not matter, `(jobs, 1)`; names as indicators, `(jobs, names)`."""
    values = values_of(jobs, key)
    places = np.array([values.index(value) for value in column_of(jobs, key)], dtype=float)
    return places[:, None] if numeric(values) else np.equal.outer(places, np.arange(len(values))).astype(float)


def _main_effect(predict: Predict, columns: dict[str, NDArray[np.float64]], key: str) -> float:
    """The variance over the jobs of what their value of a key is worth on average."""
    values, where = np.unique(columns[key], axis=0, return_inverse=True)
    jobs = len(columns[key])
    # Every value with the other keys of every job: (values * jobs, ...).
    tables = {name: np.tile(column, (len(values), 1)) for name, column in columns.items()}
    tables[key] = np.repeat(values, jobs, axis=0)
    means = predict(np.hstack(list(tables.values()))).reshape(len(values), jobs).mean(1)
    return float(np.var(means[where.ravel()]))


def interactive_page(
    title: str, states: str, jobs: pd.DataFrame, keys: Sequence[str], rank_by: str, shares: Mapping[str, float]
) -> str:
    """HTML with the history of a sweep, the importance of each key, parallel coordinates and a panel a key.

    It holds all that it needs and opens offline. `jobs` are those whose metric is finite, the best first.

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
        # The script of Plotly once, and inside the page: it opens offline.
        plot = figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"figure-{number}")
        parts.append(f"<h2>{html.escape(heading)}</h2><p>{html.escape(note)}</p>{plot}")
    return PAGE.format(title=html.escape(title), states=html.escape(states), parts="\n".join(parts))


def _hover(jobs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    columns = {key: column_of(jobs, key) for key in ("job", *keys)}
    return [
        "<br>".join(html.escape(f"{key} = {column[i]}") for key, column in columns.items()) + "<extra></extra>"
        for i in jobs.index
    ]


def _history(go: Any, jobs: pd.DataFrame, rank_by: str) -> Any:
    in_order = jobs.loc[sorted(jobs.index, key=lambda i: natural(jobs["job"][i]))]
    metric, names = in_order[rank_by].astype(float), list(in_order["job"])
    best = metric.cummin() if lower_is_better(rank_by) else metric.cummax()
    figure = go.Figure()
    figure.add_scatter(x=names, y=list(metric), mode="markers", name="jobs", hovertemplate=_hover(in_order, ()))
    figure.add_scatter(x=names, y=list(best), mode="lines", name="best so far", line={"shape": "hv"})
    return figure.update_xaxes(title="job", type="category").update_yaxes(title=rank_by)


def _bars(go: Any, shares: Mapping[str, float]) -> Any:
    keys, values = list(shares), list(shares.values())
    # Backwards, because Plotly puts the first bar at the bottom.
    figure = go.Figure(go.Bar(x=values[::-1], y=keys[::-1], orientation="h", texttemplate="%{x:.2f}"))
    return figure.update_xaxes(title="share", range=[0, 1])


def _parallel(go: Any, jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> Any:
    metric = list(jobs[rank_by])
    line = {"color": metric, "colorscale": COLOURS, "reversescale": lower_is_better(rank_by), "showscale": True}
    dimensions = [_dimension(jobs, key) for key in keys]
    return go.Figure(go.Parcoords(dimensions=[*dimensions, {"label": rank_by, "values": metric}], line=line))


def _dimension(jobs: pd.DataFrame, key: str) -> dict[str, Any]:
    values, column = values_of(jobs, key), list(column_of(jobs, key))
    if len(values) <= FEW or not numeric(values):
        places = [values.index(value) for value in column]
        return {"label": key, "values": places, "tickvals": list(range(len(values))), "ticktext": values}
    numbers = list(map(float, column))
    if not is_wide(numbers):
        return {"label": key, "values": numbers}
    # Parallel coordinates of Plotly have no logarithmic axis, so values are logarithms and ticks say what they were.
    ticks = np.geomspace(min(numbers), max(numbers), 5)
    return {
        "label": key,
        "values": np.log10(numbers).tolist(),
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"{tick:.2g}" for tick in ticks],
    }


def _scatter(go: Any, jobs: pd.DataFrame, key: str, keys: Sequence[str], rank_by: str) -> Any:
    values = values_of(jobs, key)
    figure = go.Figure(go.Scatter(x=list(column_of(jobs, key)), y=list(jobs[rank_by]), mode="markers"))
    figure.update_traces(hovertemplate=_hover(jobs, keys), marker={"size": 9, "opacity": 0.7})
    figure.update_yaxes(title=rank_by)
    if len(values) <= FEW or not numeric(values):
        return figure.update_xaxes(title=key, type="category", categoryorder="array", categoryarray=values)
    return figure.update_xaxes(title=key, type="log" if is_wide([float(value) for value in values]) else "linear")
