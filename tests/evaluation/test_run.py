"""The evaluation of a run: on which device, of which split, and what it leaves."""

from __future__ import annotations

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import compseg.report.judge
import compseg.train
import compseg.training
from compseg.errors import CompsegError
from compseg.evaluation import subject
from compseg.evaluation.run import evaluate_run
from compseg.files import from_cell
from compseg.report.judge import judge
from hostile_names import READABLE, changed, rename_samples, snapshot


class AskedError(Exception):
    """What the evaluation asked for."""


def test_a_gpu_judges_where_there_is_one(monkeypatch, tmp_path):
    def load(run, device, trust):
        raise AskedError(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(subject, "load_segmenter", load)
    (tmp_path / "config.yaml").write_text("{data: {}, head: {}}")
    with pytest.raises(AskedError) as asked:
        evaluate_run(tmp_path)
    assert asked.value.args == (torch.device("cuda"),)
    with pytest.raises(AskedError) as asked:
        evaluate_run(tmp_path, device="cpu")
    assert asked.value.args == (torch.device("cpu"),)


def test_the_device_that_trained_judges(monkeypatch, tmp_path):
    asked = {}

    def judge(run, **given):
        asked.update(given)
        return SimpleNamespace(metrics={})

    monkeypatch.setattr(compseg.training, "train", lambda *_: torch.device("cuda:3"))
    monkeypatch.setattr(compseg.training, "refuse_unread", lambda *_: None)
    monkeypatch.setattr(compseg.report.judge, "judge", judge)
    overrides = SimpleNamespace(task=[])
    output = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)), overrides=overrides)
    monkeypatch.setattr(compseg.train.HydraConfig, "get", lambda: output)
    judged = {"split": "val", "report": True, "threshold": 0.4}
    compseg.train.main(
        OmegaConf.create({"logger": None, "evaluation": judged, "overwrite": False, "trainer": {"resume": None}})
    )
    assert asked == {**judged, "device": torch.device("cuda:3"), "trust": asked["trust"]}


def test_another_split_or_device_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("{data: {}, head: {}}")
    with pytest.raises(CompsegError, match="split=most: expected auto, all, train, val, test"):
        evaluate_run(tmp_path, split="most")
    with pytest.raises(CompsegError, match="device=gpu: expected auto or one of cpu"):
        evaluate_run(tmp_path, device="gpu")


def test_validation_samples_alone_leave_no_table_of_samples(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    stored = json.loads((run / "metrics.json").read_text())
    for name in ("samples.csv", "metrics.json"):
        (run / name).unlink()
    found = evaluate_run(run, device="cpu", split="val")
    assert not (run / "samples.csv").exists()
    assert not any(name.startswith("test/") for name in found.metrics)
    assert found.metrics == {name: value for name, value in stored.items() if not name.startswith("test/")}
    assert json.loads((run / "segmenter" / "segmenter.json").read_text())["threshold"]["origin"] == "truth"
    assert found.threshold.origin == "truth"


def test_no_name_of_a_strangers_cohort_leads_out_of_its_folder(trained, tmp_path):
    run, cohort = tmp_path / "run", tmp_path / "foreign.zarr"
    shutil.copytree(trained.run, run)
    shutil.copytree(trained.cohort, cohort)
    names = READABLE[-12:]
    rename_samples(cohort, names)
    text = json.loads((cohort / "zarr.json").read_text())
    for row in text["attributes"]["compseg"]["samples"]:
        row["group"] = row["class_name"] = r"$\frac{$ <b> " + "g" * 300
    (cohort / "zarr.json").write_text(json.dumps(text))
    before = snapshot(tmp_path)
    found = judge(run, str(cohort), "cpu")
    written = changed(before, snapshot(tmp_path))
    assert found.folder.parent == tmp_path
    assert all(path == found.folder or found.folder in path.parents for path in written)
    assert {item.info.name for item in found.test} >= set(names)
    with (found.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = {from_cell(row["sample"]): row for row in csv.DictReader(file)}
    for item in found.test:
        stored = np.load(found.folder / "maps" / f"{rows[item.info.name]['file']}.npy")
        np.testing.assert_array_equal(stored, item.activation)
    assert "<script>alert" not in (found.folder / "report.html").read_text(encoding="utf-8")
