"""Where the pseudo-labeller finds nothing, the method goes on by labels alone, up to the extracted segmenter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from compseg import load_segmenter
from compseg.cohort import Cohort
from running import succeed, tiny

NULL = "source@data.source=phantom_null"  # disease samples without disease
SHORT = ("trainer.max_epochs=1", "evaluation.split=val", "evaluation.report=false")


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cohort is, or will be once the first run has made it."""
    return tmp_path_factory.mktemp("null") / "cohort.zarr"


@pytest.mark.parametrize(("method", "objective"), [("compseg", "PooledLoss"), ("supervised", "SupervisedPixels")])
def test_a_method_goes_on_without_a_teacher_that_finds_nothing(null, tmp_path, method, objective):
    run = tmp_path / "run"
    printed = succeed("train", *tiny(null, run, NULL, f"method={method}", "regulariser=total_variation", *SHORT))
    assert f"method={method} continues without pseudo-labels" in printed
    assert ("method.fallback sets pseudo_labels, head.beta, head.pool, " in printed) == (method == "compseg")
    config = OmegaConf.load(run / "config.yaml")
    assert config.objective._target_.endswith(objective)
    assert config.pseudo_labels is None
    assert config.method.fallback is None
    assert list(config.regularisers) == ["total_variation", *(["flip_consistency"] if method == "compseg" else [])]
    assert json.loads((run / "segmenter" / "segmenter.json").read_text())["pseudo_labels"] is None
    cohort = Cohort.open(null)
    name = cohort.split("val")[0].name
    assert load_segmenter(run)(cohort.image(name), cohort.tissue(name)).shape == (20, 20)


@pytest.mark.slow
def test_pictures_go_on_by_labels_alone_where_the_encoder_has_no_weights(null, tmp_path):
    run, weightless = tmp_path / "run", "pseudo_labels.features.encoder_weights=null"
    printed = succeed(
        "train", *tiny(null, run, NULL, "method=pictures", weightless, "method.fallback.n_init=1", *SHORT)
    )
    assert "the encoder has no weights" in printed
    assert "method=pictures continues without pseudo-labels; method.fallback sets pseudo_labels, objective" in printed
    config = OmegaConf.load(run / "config.yaml")
    assert config.pseudo_labels is None
    assert config.objective._target_.endswith("PooledLoss")


@pytest.mark.slow
def test_a_run_that_went_on_without_its_teacher_resumes_so(null, tmp_path):
    arguments = tiny(null, tmp_path / "run", NULL, *SHORT, "evaluation.split=none", "scheduler=constant")
    succeed("train", *arguments)
    printed = succeed("train", *arguments, "trainer.max_epochs=2", "trainer.resume=auto")
    assert "continues without pseudo-labels" in printed
    epochs = (tmp_path / "run" / "history.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in epochs] == ["0", "1"]


def test_a_teacher_that_finds_something_stays(trained):
    assert "continues without" not in trained.printed
    assert OmegaConf.load(trained.run / "config.yaml").pseudo_labels is not None
