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


def importance(jobs, keys, rank_by):
    return interactive.importance(sweep_frame(jobs, keys), keys, rank_by)


def charts(tmp_path, jobs, keys, rank_by="val/loss", shares=None, name="sweep"):
    """The options of each chart of a sweep's page, by its identifier."""
    path = tmp_path / name / "sweep.html"
    interactive.write_interactive(path, "10 jobs", sweep_frame(jobs, keys), keys, rank_by, shares or {})
    raw = path.read_text(encoding="utf-8")
    return raw, json.loads(re.search(r'id="data">(.*?)</script>', raw, re.DOTALL)[1])["charts"]


def test_every_chart_holds_every_job(jobs, tmp_path):
    shares = {"model": 0.7, "optimizer.lr": 0.2}
    raw, found = charts(tmp_path, jobs, ["model", "optimizer.lr"], shares=shares)
    assert list(found) == ["history", "importance", "parallel", "key-0", "key-1"]
    best, dots = found["history"]["series"]
    np.testing.assert_allclose(best["y"], 0.1)  # the first is the best
    np.testing.assert_allclose(dots["y"], 0.1 + 0.1 * np.arange(10))
    assert found["importance"]["y"]["names"] == ["model", "optimizer.lr"]
    models, rates, metric = found["parallel"]["parallel"]
    assert models["axis"]["names"] == ["segnet<b>", "unet"]
    assert models["values"][:2] == [1, 0]
    assert rates["axis"]["log"]
    assert metric["axis"]["reverse"]  # the best on top
    assert found["key-1"]["x"]["log"]
    assert len(found["key-0"]["series"][0]["x"]) == 10
    assert found["key-0"]["series"][0]["tips"][1].startswith(
        "job 1, val/loss 0.2\nmodel segnet<b>\noptimizer.lr 0.0002"
    )
    assert raw.count("<tr>") == 11
    assert "segnet&lt;b&gt;" in raw


def test_the_best_so_far_goes_the_right_way(jobs, tmp_path):
    for metric, best in (("val/loss", 0.1), ("val/area_auc", 1.0)):
        other = [Record(job.name, job.overrides, "finished", metrics={metric: job.metrics["val/loss"]}) for job in jobs]
        _, found = charts(tmp_path, other, ["model"], metric)
        assert found["history"]["series"][0]["y"][-1] == pytest.approx(best)


def test_a_page_is_small_whole_and_fetches_nothing(jobs, tmp_path):
    raw, found = charts(tmp_path, jobs, ["model"], name="a <sweep>")
    assert len(raw) < 1.5e6
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", raw)
    assert "<h1>a &lt;sweep&gt;</h1>" in raw
    assert "importance" not in found
    assert "default-src &#39;none&#39;" in raw or "default-src 'none'" in raw


def test_without_the_extra_the_page_has_no_importance_and_the_table_says_so(jobs, add_job, tmp_path, monkeypatch):
    for number in range(4):
        add_job(str(number), [f"head.alpha={number}"], metrics={"val/loss": float(number)})
    summarise(tmp_path / "sweep", "val/loss")
    page = (tmp_path / "sweep" / "sweep.html").read_text()
    assert "Main effects" in page
    assert "val/loss may be another loss where head.alpha differs" in page
    assert "| head.alpha | 1.00 |" in (tmp_path / "sweep" / "sweep.md").read_text()
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    summarise(tmp_path / "sweep", "val/loss")
    assert "Main effects" not in (tmp_path / "sweep" / "sweep.html").read_text()
    assert "scikit-learn is not installed" in (tmp_path / "sweep" / "sweep.md").read_text()


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
