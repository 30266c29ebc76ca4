"""The pooling neuron acts in the default: its three numbers reach history and metrics, and alpha is measured."""

from __future__ import annotations

import json

from omegaconf import OmegaConf

from running import run_here, run_verb, tiny

JUDGED = ("trainer.max_epochs=1", "evaluation.split=val", "evaluation.report=false")
NEURON = {"head.alpha": "0.05", "head.beta": "5", "head.gamma": "0"}


def test_alpha_beta_and_gamma_act_in_the_default(trained, tmp_path):
    """Two runs that differ in one of them differ in history.csv and metrics.json; a given number stays."""
    written = {}
    for name, other in {"": "", "head.alpha": "0.5", "head.beta": "1", "head.gamma": "0.05"}.items():
        values = {**NEURON, name: other} if name else NEURON
        run = tmp_path / (name or "base")
        assert run_here("train", *tiny(trained.cohort, run, *JUDGED, *(f"{key}={n}" for key, n in values.items()))) == 0
        written[name] = (run / "history.csv").read_text(), json.loads((run / "metrics.json").read_text())
        config = OmegaConf.load(run / "config.yaml")
        assert {key: float(OmegaConf.select(config, key)) for key in values} == {k: float(n) for k, n in values.items()}
    for name in NEURON:
        assert written[name][0] != written[""][0], name
        assert written[name][1] != written[""][1], name


def test_alpha_is_measured_said_and_kept(trained):
    config = OmegaConf.load(trained.run / "config.yaml")
    assert 0 < config.head.alpha < 1
    assert config.asked["head.alpha"] == "auto"
    assert f"alpha={config.head.alpha} (why: train.log)" in trained.printed
    why = f"head.alpha={config.head.alpha} (less is marked in a tenth of the disease samples)"
    assert why in (trained.run / "train.log").read_text()


def test_a_sweep_names_what_a_job_cannot_read_before_the_first_job(trained, tmp_path):
    given = tiny(trained.cohort, tmp_path / "none", "method=compseg,supervised", "head=sigma", "head.alpha=0.05,0.1")
    sweep = [item for item in given if not item.startswith("hydra.")] + [f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = run_verb("train", "-m", *sweep)
    assert done.returncode == 1
    assert "compseg train: head=sigma: does nothing here: the objective (SupervisedPixels) reads" in done.stderr
    assert not list((tmp_path / "sweep").glob("*/job.json"))
