"""The page to look around in: whole, offline, and with every job; importance against analysis of variance."""

import builtins
import itertools
import json
import re

import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.studies import interactive, summarise
from compseg.studies.page import sweep_frame
from compseg.studies.record import Record


def made(name, metric, **values):
    overrides = {key.replace("__", "."): str(value) for key, value in values.items()}
    return Record(name, overrides, "finished", metrics={"val/loss": metric})


@pytest.fixture
def jobs():
    """Best first: one key of names, one of many numbers over three decades."""
    rates = np.geomspace(1e-4, 1e-1, 10)
    models = ["unet", "segnet<b>"]
    return [made(str(i), 0.1 + 0.1 * i, model=models[i % 2], optimizer__lr=rate) for i, rate in enumerate(rates)]


def interactive_page(title, states, jobs, keys, rank_by, shares):
    return interactive.interactive_page(title, states, sweep_frame(jobs, keys), keys, rank_by, shares)


def importance(jobs, keys, rank_by):
    return interactive.importance(sweep_frame(jobs, keys), keys, rank_by)


def drawn(page):
    """What Plotly is asked to draw: data and layout of each figure."""
    found = []
    for start in re.finditer(r"Plotly\.newPlot\(\s*\"figure-\d+\",\s*", page):
        data, end = json.JSONDecoder().raw_decode(page, start.end())
        layout, _ = json.JSONDecoder().raw_decode(page, re.compile(r",\s*").match(page, end).end())
        found.append((data, layout))
    return found


def test_every_figure_holds_every_job(jobs):
    page = interactive_page(
        "s", "10 jobs", jobs, ["model", "optimizer.lr"], "val/loss", {"model": 0.7, "optimizer.lr": 0.2}
    )
    history, bars, parallel, models, rates = drawn(page)
    assert history[0][0]["x"] == [str(i) for i in range(10)]
    np.testing.assert_allclose(history[0][1]["y"], 0.1)  # the best so far is the first
    assert bars[0][0]["y"] == ["optimizer.lr", "model"]
    dimensions = parallel[0][0]["dimensions"]
    assert [dimension["label"] for dimension in dimensions] == ["model", "optimizer.lr", "val/loss"]
    assert dimensions[0]["ticktext"] == ["segnet<b>", "unet"]
    np.testing.assert_allclose(dimensions[1]["values"], np.linspace(-4, -1, 10))
    assert len(models[0][0]["x"]) == 10
    assert rates[1]["xaxis"]["type"] == "log"
    assert "segnet&lt;b&gt;" in models[0][0]["hovertemplate"][1]


def test_the_best_so_far_goes_the_right_way(jobs):
    for metric, best in (("val/loss", 0.1), ("val/area_auc", 1.0)):
        other = [Record(job.name, job.overrides, "finished", metrics={metric: job.metrics["val/loss"]}) for job in jobs]
        (history, *_) = drawn(interactive_page("s", "", other, ["model"], metric, {}))
        assert history[0][1]["y"][-1] == pytest.approx(best)


def test_plotly_is_aboard_once_and_nothing_is_fetched(jobs):
    page = interactive_page("a <sweep>", "10 jobs", jobs, ["model"], "val/loss", {})
    assert page.count("* plotly.js v") == 1
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert "<h1>a &lt;sweep&gt;</h1>" in page
    assert "Importance" not in page


def test_without_plotly_the_rest_is_written_and_says_so(jobs, add_job, tmp_path, monkeypatch):
    for number in range(4):
        add_job(str(number), [f"head.alpha={number}"], metrics={"val/loss": float(number)})
    summarise(tmp_path / "sweep", "val/loss")
    assert (tmp_path / "sweep" / "sweep.html").stat().st_size > 1_000_000
    assert "| head.alpha | 1.00 |" in (tmp_path / "sweep" / "sweep.md").read_text()
    (tmp_path / "sweep" / "sweep.html").unlink()
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith(("plotly", "sklearn")):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CompsegError, match=r"plotly is not installed; pip install 'compseg\[sweep\]'"):
        interactive_page("s", "", jobs, ["model"], "val/loss", {})
    summarise(tmp_path / "sweep", "val/loss")
    assert sorted(path.name for path in (tmp_path / "sweep").glob("sweep.*")) == ["sweep.csv", "sweep.md", "sweep.png"]
    text = (tmp_path / "sweep" / "sweep.md").read_text()
    assert "plotly is not installed" in text
    assert "scikit-learn is not installed" in text


def run(number, values, metric):
    overrides = {key: str(value) for key, value in values.items()}
    return Record(str(number), overrides, "finished", metrics={"val/loss": float(metric)})


def grid(metric, **ranges):
    cells = [dict(zip(ranges, cell, strict=True)) for cell in itertools.product(*ranges.values())]
    return [run(number, cell, metric(**cell)) for number, cell in enumerate(cells)]


def anova(jobs, key):
    """The main effect in a full grid: variance of the means of each value, over the variance of all."""
    metrics = np.array([job.metrics["val/loss"] for job in jobs])
    values = [job.overrides[key] for job in jobs]
    means = {value: np.mean([f for f, v in zip(metrics, values, strict=True) if v == value]) for value in set(values)}
    return np.var([means[value] for value in values]) / metrics.var()


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
    jobs = [run(i, cell, np.log10(cell["lr"]) ** 2 + 0.001 * cell["width"]) for i, cell in enumerate(cells)]
    found = importance(jobs, ["width", "lr"], "val/loss")
    assert list(found) == ["lr", "width"]
    assert found["lr"] > 0.8
    assert found["width"] < 0.1


@pytest.mark.parametrize("metrics", [[1.0, 2.0, 3.0], [2.0] * 6])
def test_too_little_to_tell(metrics):
    assert importance([run(i, {"a": i}, f) for i, f in enumerate(metrics)], ["a"], "val/loss") == {}


def test_without_scikit_learn(monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CompsegError, match=r"scikit-learn is not installed; pip install 'compseg\[sweep\]'"):
        importance(grid(lambda a, b: a + b, a=[0, 1], b=[0, 1]), ["a", "b"], "val/loss")
