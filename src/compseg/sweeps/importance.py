"""How much of the differences between jobs is due to each key that was swept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.sweeps.jobs import Job, figure_of
from compseg.sweeps.picture import numeric, value_of, values_of

Predict = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# With fewer jobs there is nothing to tell apart.
ENOUGH = 4


def importance(jobs: Sequence[Job], keys: Sequence[str], rank_by: str) -> dict[str, float]:
    """The main effect of each key: its share in the variance of a figure.

    As in functional analysis of variance (Hutter, Hoos and Leyton-Brown, ICML 2014): a forest of random trees that goes
    through every job gives the mean figure that a value of a key would have had with the other keys of every job; the
    variance of these means over the jobs, divided by that of the figure, is the share. For a full grid that is plain
    analysis of variance, and the shares add up to 1 less the interactions. For a search, which crowds where it is good,
    they are estimates.

    Args:
        jobs: Jobs whose figure is finite.
        keys: What was swept.
        rank_by: The figure.

    Returns:
        The share of each key in [0, 1], the largest first; empty where jobs or differences are too few to tell.

    Raises:
        CompsegError: If scikit-learn is not installed.
    """
    figures = np.array([figure_of(job, rank_by) for job in jobs])
    if len(jobs) < ENOUGH or not keys or not np.ptp(figures):
        return {}
    try:
        from sklearn.ensemble import ExtraTreesRegressor  # type: ignore[import-untyped]
    except ImportError:
        raise CompsegError("importance: scikit-learn is not installed; pip install 'compseg[sweep]'") from None
    columns = {key: _encoded(jobs, key) for key in keys}
    forest = ExtraTreesRegressor(n_estimators=100, random_state=0).fit(np.hstack(list(columns.values())), figures)
    shares = {key: _main_effect(forest.predict, columns, key) / float(figures.var()) for key in keys}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _encoded(jobs: Sequence[Job], key: str) -> NDArray[np.float64]:
    """Numbers by rank, so that their scale does not matter, `(jobs, 1)`; names as indicators, `(jobs, names)`."""
    values = values_of(jobs, key)
    places = np.array([values.index(value_of(job, key)) for job in jobs], dtype=float)
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
