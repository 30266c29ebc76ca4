"""A run that is judged on another cohort stays as it was, byte for byte; its threshold and its name go along."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from compseg.cohort import Cohort, prepare
from compseg.errors import CompsegError
from compseg.evaluation.run import evaluate_run, maps_of
from compseg.evaluation.subject import load_head
from compseg.evaluation.thresholds import fixed
from compseg.files import write_checked
from compseg.inference import load_segmenter
from compseg.report.judge import judge
from compseg.run_folder import load_config
from compseg.samples import Channels, SampleArrays
from compseg.studies.pooled import _write_ensemble
from running import run_here


def snapshot(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def another(cohort, path, **changes):
    """A copy of a cohort under another table, which is another cohort."""
    shutil.copytree(cohort, path)
    root = json.loads((path / "zarr.json").read_text())
    for row in root["attributes"]["compseg"]["samples"]:
        row.update(patient=f"other {row['name']}", **changes)
    (path / "zarr.json").write_text(json.dumps(root))
    return path


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained.run, tmp_path / "run")


@pytest.fixture(scope="module")
def clinic2(trained, tmp_path_factory):
    return another(trained.cohort, tmp_path_factory.mktemp("external") / "clinic2.zarr", split="test")


def areas(run, cohort, out):
    assert run_here("predict", f"run={run}", f"input={cohort}", f"out={out}") == 0
    with (out / "areas.csv").open() as file:
        return list(csv.DictReader(file)), snapshot(out / "maps").keys()


def test_another_cohort_leaves_the_run_as_it_was(run, clinic2, trained, tmp_path, capsys):
    before, mapped = snapshot(run), areas(run, trained.cohort, tmp_path / "before")
    assert run_here("evaluate", f"run={run}", f"cohort={clinic2}", "device=cpu") == 0
    printed = capsys.readouterr().out
    assert snapshot(run) == before
    assert areas(run, trained.cohort, tmp_path / "after") == mapped

    folder, count = tmp_path / "run_on_clinic2", len(Cohort.open(clinic2).infos)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("cohort") == "clinic2"
    assert metrics["threshold"] == load_segmenter(run).threshold.value
    assert not [name for name in metrics if name.startswith("val/")]
    assert f"run on clinic2: {count} samples of {clinic2}" in printed
    assert f"report: {folder / 'report.html'}" in printed
    page = (folder / "report.html").read_text()
    assert "<h1>run on clinic2</h1>" in page
    assert f"on an external cohort, {clinic2}" in page
    with (folder / "samples.csv").open() as file:
        assert len(list(csv.DictReader(file))) == count
    assert len(list((folder / "maps").glob("*.npy"))) == count
    about = json.loads((folder / "evaluation.json").read_text())
    fingerprint = Cohort.open(clinic2).fingerprint
    assert about == {"run": "run", "cohort": str(clinic2), "fingerprint": fingerprint, "split": "all"}


class Turned:
    """The samples of a cohort with their channels in the other direction, or at other positions."""

    def __init__(self, cohort, moved=0.0):
        self.cohort, self.moved = cohort, moved

    def infos(self):
        return self.cohort.infos

    def read(self, info):
        name, cohort = info.name, self.cohort
        return SampleArrays(cohort.image(name)[..., ::-1], cohort.tissue(name), cohort.truth(name))

    def channels(self):
        own = self.cohort.channels
        return Channels(own.count, tuple(value + self.moved for value in own.values[::-1]), own.unit)

    def provenance(self):
        return {"source": "turned", "moved": self.moved}


def test_a_cohort_in_the_other_direction_is_judged_the_same(run, clinic2, tmp_path):
    plain, segmenter = Cohort.open(clinic2), load_segmenter(run)
    prepare(Turned(plain), tmp_path / "turned.zarr", dtype=plain.dtype, progress=False)
    head, cohorts = load_head(run, load_config(run)), (plain, Cohort.open(tmp_path / "turned.zarr"))
    direct, turned = ([*maps_of(segmenter, head, cohort, cohort.infos[:4])] for cohort in cohorts)
    for one, other in zip(direct, turned, strict=True):
        np.testing.assert_array_equal(one.activation, other.activation)
        assert one.output == other.output
    prepare(Turned(plain, 5000.0), tmp_path / "moved.zarr", dtype=plain.dtype, progress=False)
    with pytest.raises(CompsegError, match=r"its axis is .* expected .* nothing is known outside"):
        evaluate_run(run, str(tmp_path / "moved.zarr"), device="cpu", out=tmp_path / "moved")


def test_the_own_cohort_leaves_the_segmenter_as_it_was(run, trained):
    before = snapshot(run / "segmenter")
    stored = json.loads((run / "metrics.json").read_text())
    found = evaluate_run(run, device="cpu", maps=False)
    assert found.folder == run
    assert found.metrics == stored
    assert snapshot(run / "segmenter") == before
    # Asked for, it is fitted anew and stored.
    assert evaluate_run(run, device="cpu", threshold="probabilities", maps=False).threshold.origin == "probabilities"
    assert load_segmenter(run).threshold.origin == "probabilities"
    assert evaluate_run(run, device="cpu", split="val", maps=False).threshold.origin == "probabilities"


def test_a_copy_of_the_own_cohort_is_the_own_cohort(run, trained, tmp_path):
    found = evaluate_run(run, str(shutil.copytree(trained.cohort, tmp_path / "moved.zarr")), "cpu", maps=False)
    assert (found.folder, found.external) == (run, False)


def test_the_own_cohort_changed_in_place_is_not_the_own_cohort(run, trained, tmp_path):
    changed = another(trained.cohort, tmp_path / "cohort.zarr")
    config = run / "config.yaml"
    write_checked(config, config.read_text().replace(f"path: {trained.cohort}", f"path: {changed}"))
    with pytest.raises(CompsegError, match=r"cohort\.zarr: has changed since .* trained on it; put the old"):
        evaluate_run(run, device="cpu")
    assert evaluate_run(run, str(changed), "cpu", maps=False).folder == tmp_path / "run_on_cohort"


def test_runs_of_earlier_versions_go_by_the_path(run, trained, clinic2):
    config = run / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    write_checked(config, "".join(line for line in lines if "fingerprint" not in line))
    assert not evaluate_run(run, device="cpu", maps=False).external
    assert not evaluate_run(run, str(trained.cohort), "cpu", maps=False).external
    assert evaluate_run(run, str(clinic2), "cpu", maps=False).external


def test_a_split_a_number_and_a_folder_may_be_asked_for(run, trained, tmp_path):
    mixed = another(trained.cohort, tmp_path / "mixed.zarr")
    before = snapshot(run)
    found = judge(run, str(mixed), "cpu", split="val", threshold=0.25, report=False, out=tmp_path / "elsewhere")
    assert [item.info.split for item in found.test] == ["val"] * len(found.test) != []
    assert found.threshold.value == 0.25
    assert json.loads((tmp_path / "elsewhere/metrics.json").read_text())["threshold"] == 0.25
    assert not (tmp_path / "elsewhere/report.html").exists()
    assert snapshot(run) == before


def test_one_class_alone_can_be_judged(run, trained, tmp_path):
    path = another(trained.cohort, tmp_path / "sick.zarr", label=1)
    found = judge(run, str(path), "cpu")
    assert "test/area_auc" not in found.metrics
    assert "Only one class" in (found.folder / "report.html").read_text()


def test_what_is_refused_and_leaves_no_folder(run, clinic2, trained, tmp_path):
    with pytest.raises(CompsegError, match="threshold=auto: is fitted to a run's own validation samples alone"):
        evaluate_run(run, str(clinic2), "cpu", threshold="auto")
    with pytest.raises(CompsegError, match="no sample in split val"):
        evaluate_run(run, str(clinic2), "cpu", split="val")
    with pytest.raises(CompsegError, match="split=train: of the run's own cohort expected test or val"):
        evaluate_run(run, device="cpu", split="train")
    with pytest.raises(CompsegError, match="split=most: expected auto, all, train, val, test"):
        evaluate_run(run, device="cpu", split="most")
    description = run / "segmenter/segmenter.json"
    plain = json.loads(description.read_text()) | {"threshold": None}
    del plain["sha256"]
    description.write_text(json.dumps(plain))
    with pytest.raises(CompsegError, match=r"has no threshold yet; python -m compseg\.evaluate run=.* fits it"):
        evaluate_run(run, str(clinic2), "cpu")
    assert not (tmp_path / "run_on_clinic2").exists()


def test_results_of_another_evaluation_are_left_alone(run, trained, clinic2, tmp_path):
    folder = evaluate_run(run, str(clinic2), "cpu", maps=False).folder
    before = snapshot(folder)
    namesake = another(trained.cohort, tmp_path / "there/clinic2.zarr")
    with pytest.raises(CompsegError, match="holds an evaluation of another fingerprint; give another out="):
        evaluate_run(run, str(namesake), "cpu")
    with pytest.raises(CompsegError, match="run: holds something else; give another out="):
        evaluate_run(run, str(clinic2), "cpu", out=shutil.copytree(run, tmp_path / "there/run"))
    assert snapshot(folder) == before
    evaluate_run(run, str(clinic2), "cpu", maps=False)  # again is no other


@pytest.fixture(scope="module")
def members(trained, tmp_path_factory):
    """Runs of a cross-validation, as far as its ensemble is concerned: two that differ, with heads that learn."""
    made = []
    for number in (1, 2):
        run = shutil.copytree(trained.run, tmp_path_factory.mktemp("folds") / f"fold_{number}")
        config = load_config(run)
        config.head.pool = {"_target_": "compseg.comparative.NoisyAndPool"}
        config.data.held_out = {"fold": number, "of": 2, "seed": 0}
        write_checked(run / "config.yaml", OmegaConf.to_yaml(config))
        best = run / "checkpoints/best.ckpt"
        state = torch.load(best, weights_only=True)
        state["state_dict"] |= {
            f"head.{key}": value + number for key, value in instantiate(config.head).state_dict().items()
        }
        torch.save(state, best)
        segmenter = load_segmenter(run)
        segmenter.preprocess.mean += 0.1 * number
        segmenter.with_threshold(fixed(0.1 * number)).save(run / "segmenter")
        made.append(run)
    return made


@pytest.fixture
def ensemble(members, tmp_path):
    _write_ensemble(tmp_path / "ensemble", members)
    return tmp_path / "ensemble"


def test_an_ensemble_of_folds_is_judged_on_another_cohort(ensemble, members, clinic2, tmp_path, capsys):
    before = snapshot(ensemble)
    assert run_here("evaluate", f"run={ensemble}", f"cohort={clinic2}", "device=cpu", "uncertainty=true") == 0
    assert snapshot(ensemble) == before
    folder, cohort, whole = tmp_path / "ensemble_on_clinic2", Cohort.open(clinic2), load_segmenter(ensemble)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["cohort"], metrics["threshold"]) == ("clinic2", pytest.approx(0.15))
    assert 0 <= metrics["test/area_auc"] <= 1
    page = (folder / "report.html").read_text()
    assert "<h1>ensemble on clinic2</h1>" in page
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    name = cohort.infos[0].name
    mapped = np.load(folder / f"maps/{name}.npy")
    np.testing.assert_allclose(mapped, whole(cohort.image(name), cohort.tissue(name)), atol=1e-6)
    assert (folder / f"maps/{name}_spread.npy").is_file()
    levels = [load_head(place, load_config(place)).state_dict()["pool.threshold"] for place in (*members, ensemble)]
    assert levels[2] == sum(levels[:2]) / 2


def test_of_its_own_cohort_an_ensemble_knows_every_sample_that_was_not_left_aside(ensemble, trained):
    with pytest.raises(CompsegError, match=r"ensemble: its members have learned from all samples of .* give cohort="):
        evaluate_run(ensemble, device="cpu")
    config = load_config(ensemble)
    config.data.held_out_as = "val"  # as compare with split=val leaves test samples aside
    write_checked(ensemble / "config.yaml", OmegaConf.to_yaml(config))
    with pytest.raises(CompsegError, match="split=val: of the run's own cohort expected test, which"):
        evaluate_run(ensemble, device="cpu", split="val")
    with pytest.raises(CompsegError, match="threshold=auto: is fitted to a run's own validation samples alone"):
        evaluate_run(ensemble, device="cpu", threshold="auto")
    found = judge(ensemble, device="cpu")
    assert found.folder == ensemble
    assert {item.info.split for item in found.test} == {"test"}
    assert not [name for name in found.metrics if name.startswith("val/")]
    assert (ensemble / "report.html").is_file()
