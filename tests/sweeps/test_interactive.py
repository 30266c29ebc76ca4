"""The page to look around in: whole, offline, and with every job."""

import builtins
import json
import re

import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.sweeps.interactive import interactive_page
from compseg.sweeps.jobs import Job
from compseg.sweeps.summary import summarise


def made(name, figure, **values):
    overrides = {key.replace("__", "."): str(value) for key, value in values.items()}
    return Job(name, overrides, "finished", figures={"val/loss": figure})


@pytest.fixture
def jobs():
    """Best first: one key of names, one of many numbers over three decades."""
    rates = np.geomspace(1e-4, 1e-1, 10)
    models = ["unet", "segnet<b>"]
    return [made(str(i), 0.1 + 0.1 * i, model=models[i % 2], optimizer__lr=rate) for i, rate in enumerate(rates)]


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
    for figure, best in (("val/loss", 0.1), ("val/area_auc", 1.0)):
        other = [Job(job.name, job.overrides, "finished", figures={figure: job.figures["val/loss"]}) for job in jobs]
        (history, *_) = drawn(interactive_page("s", "", other, ["model"], figure, {}))
        assert history[0][1]["y"][-1] == pytest.approx(best)


def test_plotly_is_aboard_once_and_nothing_is_fetched(jobs):
    page = interactive_page("a <sweep>", "10 jobs", jobs, ["model"], "val/loss", {})
    assert page.count("* plotly.js v") == 1
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert "<h1>a &lt;sweep&gt;</h1>" in page
    assert "Importance" not in page


def test_without_plotly_the_rest_is_written_and_says_so(jobs, add_job, tmp_path, monkeypatch):
    for number in range(4):
        add_job(str(number), [f"head.alpha={number}"], figures={"val/loss": float(number)})
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
