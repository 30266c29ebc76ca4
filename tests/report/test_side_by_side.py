import json
import re

import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.evaluation.tables import flat_metrics, metrics_of_splits, samples_csv, write_replicates
from compseg.evaluation.thresholds import fixed
from compseg.file_names import file_names
from compseg.inference.outputs import ENDINGS
from compseg.inference.prediction import write_map
from compseg.report.side_by_side import BESIDE, beside, write_side_by_side
from made_maps import mixture


def judged(folder, maps, value, **config):
    """A run folder as an evaluation leaves it."""
    threshold = fixed(value)
    measured = metrics_of_splits([], maps, threshold)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(flat_metrics(measured, threshold, 0.1)))
    files = file_names([m.info.name for m in maps], ENDINGS)
    samples_csv(maps, threshold, folder / "samples.csv", files)
    write_replicates(measured, folder / "bootstrap.npz")
    for item in maps:
        marked = threshold.apply(item.activation, item.tissue)
        write_map(folder / "maps", files[item.info.name], np.zeros((8, 8, 3), np.uint8), item.activation, marked)
    text = "".join(f"{key}: {value}\n" for key, value in {"data": "{path: c}", "head": "{alpha: 1}", **config}.items())
    (folder / "config.yaml").write_text(text)
    (folder / "history.csv").write_text("epoch,val/loss\n0,0.5\n1,\n")
    return folder


def page_of(path):
    raw = path.read_text(encoding="utf-8")
    return raw, json.loads(re.search(r'id="data">(.*?)</script>', raw, re.DOTALL)[1])["charts"]


def test_two_runs_on_the_same_samples(tmp_path):
    maps = mixture(8)
    runs = [judged(tmp_path / name, maps, value, seed=value) for name, value in (("A", 0.5), ("<b>", 0.3))]
    (runs[0] / "report.html").touch()
    raw, charts = page_of(write_side_by_side(runs, tmp_path / "both.html"))
    assert set(charts) == {"roc", "loss", "pairs"}
    assert charts["loss"]["series"][0]["y"] == [0.5, None]
    assert len(charts["pairs"]["series"][1]["x"]) == 8
    first, second = (json.loads((run / "metrics.json").read_text())["test/dice_mean"] for run in runs)
    assert f"{second - first:+.3f} [" in raw
    assert re.search(r"title=\"(no sure difference|A is better|&lt;b&gt; is better)\"", raw)
    assert '<a href="A/report.html">' in raw
    assert ">seed</td>" in raw
    assert ">head.alpha</td>" not in raw
    assert raw.count("data:image/jpeg") == 16
    assert "<b>" not in raw.replace("<b></b>", "")
    assert len(raw) < 1.5e6


def test_runs_on_other_samples_have_no_paired_differences(tmp_path):
    runs = [judged(tmp_path / "a" / "run", mixture(8), 0.5), judged(tmp_path / "b" / "run", mixture(8, offset=9), 0.5)]
    raw, charts = page_of(write_side_by_side(runs, tmp_path / "both.html"))
    assert "a/run" in raw
    assert "not paired" in raw
    assert "pairs" not in charts
    assert "Nothing was set differently" in raw


def test_what_cannot_be_laid_side_by_side(tmp_path):
    run = judged(tmp_path / "run", mixture(4), 0.5)
    with pytest.raises(CompsegError, match="expected two or more"):
        write_side_by_side([run], tmp_path / "x.html")
    with pytest.raises(CompsegError, match="given twice"):
        write_side_by_side([run, run], tmp_path / "x.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompsegError, match="was not judged"):
        write_side_by_side([run, tmp_path / "empty"], tmp_path / "x.html")


def test_a_classifier_of_the_same_labels_beside_a_run(tmp_path):
    maps = mixture(16)
    run, cam = (judged(tmp_path / name, maps, value) for name, value in (("run", 0.5), ("cam", 0.3)))
    (cam / "config.yaml").write_text("data: {path: c}\nhead: {alpha: 1}\nmethod: {name: gradcam}\n")
    regions = {item.info.name: "data:," for item in maps if item.info.label}
    metrics, samples, shown = beside(run, cam, regions)
    assert metrics.head == ["metric", "run", "cam", "cam less run"]
    assert "(method=gradcam)" in metrics.words
    assert "the question the paper leaves open" in metrics.words
    assert list(samples.options) == ["pairs"]
    assert len(shown.gallery) == BESIDE < len(maps)
    for item in shown.gallery:
        assert [bool(picture) for _, picture in item.pictures] == [True, True, item.disease]
    (cam / "config.yaml").write_text("data: {path: c}\nhead: {alpha: 1}\n")
    assert "paper" not in beside(run, cam, {})[0].words
    other = judged(tmp_path / "other", mixture(4, offset=50), 0.5)
    with pytest.raises(CompsegError, match=r"beside=.*other: was judged on none of the samples"):
        beside(run, other, {})
