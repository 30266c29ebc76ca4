"""The evaluation of a run: on which device, of which split, and what it leaves."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

import compseg.report
import compseg.train
import compseg.training
from compseg.errors import CompsegError
from compseg.evaluation import run as evaluation
from compseg.evaluation.run import evaluate_run


class AskedError(Exception):
    """What the evaluation asked for."""


def test_a_gpu_judges_where_there_is_one(monkeypatch, tmp_path):
    def load(run, device, trust):
        raise AskedError(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(evaluation, "load_segmenter", load)
    (tmp_path / "config.yaml").write_text("model: {}")
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
    monkeypatch.setattr(compseg.report, "judge", judge)
    output = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)))
    monkeypatch.setattr(compseg.train.HydraConfig, "get", lambda: output)
    compseg.train.main(OmegaConf.create({"logger": None, "evaluation": {"split": "val", "report": True}}))
    assert (asked["device"], asked["split"]) == (torch.device("cuda:3"), "val")


def test_another_split_or_device_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {}")
    with pytest.raises(CompsegError, match="split=train: expected test or val"):
        evaluate_run(tmp_path, split="train")
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
