"""A sweep on one page to look around in, and the importance of each key.

Optuna 5.0 has both, but its analysis of variance rests on bootstrapped trees: to the two keys of a 2 x 2 grid whose
effect is an interaction alone it gives .38 and .35, where plain analysis of variance gives 0; and its pages bring four
megabytes of a library along. So both are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.evaluation.names import lower_is_better
from compseg.report.parts import Cell, Part, finite, number
from compseg.report.study import report_of, write_study
from compseg.studies.pictures import FEW, column_of, is_wide, numeric, values_of
from compseg.studies.record import INTERVAL_ENDS, natural

if TYPE_CHECKING:
    import pandas as pd

Predict = Callable[[NDArray[np.float64]], NDArray[np.float64]]

ENOUGH = 4  # with fewer jobs there is nothing to tell apart


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


def write_interactive(
    path: Path,
    states: str,
    jobs: pd.DataFrame,
    keys: Sequence[str],
    rank_by: str,
    shares: Mapping[str, float],
    notes: Sequence[str] = (),
) -> Path:
    """Write HTML with the ranked jobs of a sweep, their history, the importance of each key and a chart for each.

    It holds all that it needs and opens offline. `jobs` are those whose metric is finite, the best first; `notes` are
    on how to read the ranking.
    """
    jobs = jobs.assign(report=[report_of(path.parent, str(job)) for job in jobs["job"]])
    better = "lower" if lower_is_better(rank_by) else "higher"
    said = [f"Ranked by {rank_by}, {better} is better.", *notes, "A click on a column sorts by it."]
    ranked = Part("Jobs", " ".join(said))
    ranked.head, ranked.rows = _table(jobs, keys, rank_by)
    found = Part("What matters")
    found.add("history", f"{rank_by} of each job in its order, and the best so far.", _history(jobs, rank_by))
    if shares:
        words = f"Main effects: shares of the keys in the variance of {rank_by}; the rest is interactions and chance."
        found.add("importance", words, _bars(shares))
    if keys:
        words = "A line a job, the better the redder. Point at one for its values, click it for its report."
        found.add("parallel", words, _parallel(jobs, keys, rank_by))
    each = Part("Key by key", "A dot a job; point at one for its values, click it for its report.")
    for place, key in enumerate(keys):
        each.add(f"key-{place}", key, _scatter(jobs, key, keys, rank_by))
    return write_study(path, "compseg: a sweep", path.parent.name, f"{states}.", [ranked, found, *[each] * bool(keys)])


def _table(jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> tuple[Sequence[str], list[list[Cell]]]:
    metrics = [name for name in jobs.columns if "/" in name and not name.endswith(INTERVAL_ENDS) and name not in keys]
    metrics = [rank_by, *(name for name in metrics if name != rank_by)]
    rows = [
        [Cell(str(rank), rank), Cell(str(job["job"]), href=job["report"], tip=tip)]
        + [number(float(job[key])) if numeric([str(job[key])]) else Cell(str(job[key])) for key in keys]
        + [number(job[name]) if isinstance(job[name], int | float) else Cell(str(job[name])) for name in metrics]
        for rank, ((_, job), tip) in enumerate(zip(jobs.iterrows(), _tips(jobs, keys, rank_by), strict=True), 1)
    ]
    return ("rank", "job", *keys, *metrics), rows


def _tips(jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> list[str]:
    """What is said of each job on pointing at it."""
    return [
        "\n".join([f"job {job['job']}, {rank_by} {job[rank_by]:.4g}", *(f"{key} {job[key]}" for key in keys)])
        for _, job in jobs.iterrows()
    ]


def _dots(jobs: pd.DataFrame, x: list[Any], keys: Sequence[str], rank_by: str) -> dict[str, Any]:
    y, tips, links = finite(jobs[rank_by].astype(float)), _tips(jobs, keys, rank_by), list(jobs["report"])
    return {"kind": "dots", "colour": "blue", "x": x, "y": y, "tips": tips, "links": links}


def _history(jobs: pd.DataFrame, rank_by: str) -> dict[str, Any]:
    in_order = jobs.loc[sorted(jobs.index, key=lambda i: natural(jobs["job"][i]))]
    metric, places = in_order[rank_by].astype(float), list(range(1, len(jobs) + 1))
    best = metric.cummin() if lower_is_better(rank_by) else metric.cummax()
    line = {"name": "best so far", "kind": "step", "colour": "red", "x": places, "y": finite(best)}
    dots = {"name": "jobs", **_dots(in_order, places, (), rank_by)}
    return {"series": [line, dots], "x": {"label": "jobs, in their order"}, "y": {"label": rank_by}}


def _bars(shares: Mapping[str, float]) -> dict[str, Any]:
    places, values = list(range(len(shares))), finite(shares.values())
    bars = {"kind": "ranges", "colour": "blue", "x": [0] * len(shares), "x2": values, "y": places}
    dots = {
        "kind": "dots",
        "colour": "blue",
        "x": values,
        "y": places,
        "tips": [f"{key}: {share:.2f}" for key, share in shares.items()],
    }
    y = {"label": "", "names": list(shares), "min": -0.5, "max": len(shares) - 0.5, "reverse": True}
    return {
        "series": [bars, dots],
        "x": {"label": "share", "min": 0, "max": 1},
        "y": y,
        "height": 80 + 26 * len(shares),
    }


def _axis(jobs: pd.DataFrame, key: str) -> tuple[dict[str, Any], list[Any]]:
    """An axis for a key, and the place of each job on it."""
    values, column = values_of(jobs, key), list(column_of(jobs, key))
    if len(values) <= FEW or not numeric(values):
        axis: dict[str, Any] = {"names": values, "min": -0.5, "max": len(values) - 0.5}
        return {"label": key, **axis}, [values.index(value) for value in column]
    numbers = [float(value) for value in column]
    return {"label": key, "log": is_wide(numbers)}, numbers


def _parallel(jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> dict[str, Any]:
    axes = [_axis(jobs, key) for key in keys]
    last = {"label": rank_by, "reverse": lower_is_better(rank_by)}, finite(jobs[rank_by].astype(float))
    columns = [{"axis": axis, "values": values} for axis, values in [*axes, last]]
    return {"parallel": columns, "tips": _tips(jobs, keys, rank_by), "links": list(jobs["report"])}


def _scatter(jobs: pd.DataFrame, key: str, keys: Sequence[str], rank_by: str) -> dict[str, Any]:
    axis, places = _axis(jobs, key)
    return {"series": [_dots(jobs, places, keys, rank_by)], "x": axis, "y": {"label": rank_by}}
