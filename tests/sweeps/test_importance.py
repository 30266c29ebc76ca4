"""Importance against analysis of variance, and what it does where there is little to tell."""

import builtins
import itertools

import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.sweeps.importance import importance
from compseg.sweeps.jobs import Job


def made(number, values, figure):
    overrides = {key: str(value) for key, value in values.items()}
    return Job(str(number), overrides, "finished", figures={"val/loss": float(figure)})


def grid(figure, **ranges):
    cells = [dict(zip(ranges, cell, strict=True)) for cell in itertools.product(*ranges.values())]
    return [made(number, cell, figure(**cell)) for number, cell in enumerate(cells)]


def anova(jobs, key):
    """The main effect in a full grid: variance of the means of each value, over the variance of all."""
    figures = np.array([job.figures["val/loss"] for job in jobs])
    values = [job.overrides[key] for job in jobs]
    means = {value: np.mean([f for f, v in zip(figures, values, strict=True) if v == value]) for value in set(values)}
    return np.var([means[value] for value in values]) / figures.var()


def test_a_full_grid_is_plain_analysis_of_variance():
    penalty = {"unet": 0.0, "segnet": 2.0, "other": -1.0}
    jobs = grid(
        lambda a, b, model: 3 * np.log(a) + (b == 5) + penalty[model] + 0.7 * (a == 1) * (model == "unet"),
        a=[0.01, 0.1, 1],
        b=[1, 5],
        model=list(penalty),
    )
    keys = ["a", "b", "model"]
    found = importance(jobs, keys, "val/loss")
    assert found == pytest.approx({key: anova(jobs, key) for key in keys}, abs=1e-9)
    assert list(found) == sorted(found, key=found.get, reverse=True)
    assert sum(found.values()) < 1  # the interaction is left over


def test_an_interaction_alone_is_no_main_effect():
    found = importance(grid(lambda a, b: float(a == b), a=[0, 1], b=[0, 1]), ["a", "b"], "val/loss")
    assert found == pytest.approx({"a": 0.0, "b": 0.0}, abs=1e-9)


def test_a_random_search_finds_what_matters():
    draw = np.random.default_rng(0)
    cells = [{"lr": 10 ** draw.uniform(-4, -1), "width": int(draw.integers(8, 64))} for _ in range(40)]
    jobs = [made(i, cell, np.log10(cell["lr"]) ** 2 + 0.001 * cell["width"]) for i, cell in enumerate(cells)]
    found = importance(jobs, ["width", "lr"], "val/loss")
    assert list(found) == ["lr", "width"]
    assert found["lr"] > 0.8
    assert found["width"] < 0.1


@pytest.mark.parametrize("figures", [[1.0, 2.0, 3.0], [2.0] * 6])
def test_too_little_to_tell(figures):
    assert importance([made(i, {"a": i}, f) for i, f in enumerate(figures)], ["a"], "val/loss") == {}


def test_without_scikit_learn(monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CompsegError, match=r"scikit-learn is not installed; pip install 'compseg\[sweep\]'"):
        importance(grid(lambda a, b: a + b, a=[0, 1], b=[0, 1]), ["a", "b"], "val/loss")
