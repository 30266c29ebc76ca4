"""What rooms ask of a run's configuration, whichever version wrote it."""

from __future__ import annotations

import pytest

from compseg.errors import CompsegError
from compseg.run_folder import load_config, threshold_of, trains_on_pseudo_labels

# Shortened from a run of the version before `evaluation` and `pseudo_labels`.
BEFORE = """
data: {_target_: compseg.learning.CohortData, path: spots/cohort.zarr, held_out: null, held_out_as: test}
model: {_target_: compseg.models.UNet, in_channels: 12, out_channels: 1}
head: {_target_: compseg.comparative.SigmaHead, alpha: 0.1, beta: 5.0, gamma: 0.001}
method: compseg
teacher: {_target_: compseg.comparative.FisherTeacher, channels: 12, reach: 5, teaches: true}
otherwise: null
localiser: null
floor: null
threshold: 0.35
starts: 1
evaluate: true
test: true
report: true
rank_by: val/loss
"""
NOW = """
data: {_target_: compseg.batches.CohortData, path: spots/cohort.zarr, held_out: null, held_out_as: test}
method: {name: compseg, maps: 1, baseline: null, cam: null, fallback: null}
pseudo_labels: {_target_: compseg.comparative.FisherPseudoLabels, channels: 12, supervises: true}
evaluation: {split: test, threshold: labels, report: true, rank_by: val/loss}
"""


def config(tmp_path, text):
    needed = (f"{key}: {{}}\n" for key in ("data", "head") if f"{key}:" not in text)
    (tmp_path / "config.yaml").write_text("\n".join([text, *needed]))
    return load_config(tmp_path)


def test_runs_of_both_versions_are_read(tmp_path):
    before, now = config(tmp_path, BEFORE), config(tmp_path, NOW)
    assert (threshold_of(before), threshold_of(now)) == (0.35, "labels")
    assert trains_on_pseudo_labels(before)
    assert trains_on_pseudo_labels(now)


@pytest.mark.parametrize("text", [BEFORE, NOW])
def test_contrasts_alone_are_no_pseudo_labels(tmp_path, text):
    alone = text.replace("teaches: true", "teaches: false").replace("supervises: true", "supervises: false")
    assert not trains_on_pseudo_labels(config(tmp_path, alone))


@pytest.mark.parametrize("key", ["teacher", "pseudo_labels"])
def test_without_a_pseudo_labeller_there_are_none(tmp_path, key):
    assert not trains_on_pseudo_labels(config(tmp_path, f"{key}: null"))
    assert threshold_of(config(tmp_path, "seed: 0")) == "auto"


def test_a_folder_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(CompsegError, match=r"not a run folder \(config.yaml is missing\)"):
        load_config(tmp_path)
