"""The whole path as a user walks it: train, evaluate, predict, from the command line, on a tiny phantom."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compseg import load_segmenter
from compseg.cohort import Cohort
from running import history_of, run_verb, succeed, tiny

TEST_FIGURES = {"area_auc", "pixel_ap", "dice_mean", "dice_std", "dice_best", "healthy_area_fraction"}
CHECKS = {"pixel_ap_own", "pixel_ap_swapped"}
VAL_FIGURES = {"area_auc", "pixel_ap", "dice_best"}


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder_holds_what_the_contract_lists(trained):
    for name in ("config.yaml", "metrics.json", "history.csv", "samples.csv", "report.html", "environment.json"):
        assert (trained.run / name).stat().st_size > 0, name
    for name in (
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "segmenter/segmenter.json",
        "segmenter/weights.safetensors",
        "figures/roc.png",
    ):
        assert (trained.run / name).is_file(), name
    assert f"report: {trained.run / 'report.html'}" in trained.printed


def test_metrics_are_the_contracts_and_numbers_alone(trained):
    metrics = json.loads((trained.run / "metrics.json").read_text())
    figures = {f"test/{name}" for name in TEST_FIGURES | CHECKS} | {f"val/{name}" for name in VAL_FIGURES}
    with_intervals = {key + end for key in {*figures, "threshold"} for end in ("", "_ci_low", "_ci_high")}
    assert set(metrics) == {"val/loss", *with_intervals}
    assert all(isinstance(value, float) for value in metrics.values())
    best = min(row["val/loss"] for row in history_of(trained.run))
    assert metrics["val/loss"] == pytest.approx(best, rel=1e-5)


def test_a_row_and_a_map_for_every_test_sample(trained):
    cohort = Cohort.open(trained.cohort)
    names = [info.name for info in cohort.split("test")]
    assert [row["sample"] for row in read_rows(trained.run / "samples.csv")] == names
    for name in names:
        assert np.load(trained.run / "maps" / f"{name}.npy").shape == cohort.shape(name)[:2]
        assert (trained.run / "maps" / f"{name}.png").is_file()


def test_checkpoints_hold_plain_values(trained):
    for name in ("best", "last"):
        checkpoint = torch.load(trained.run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["config"]["model"]["_target_"] == "compseg.models.UNet"


def test_prediction_gives_evaluations_numbers(trained, tmp_path):
    """From files in full precision that no cohort ever held, without masks: the same maps, the same area fractions."""
    cohort = Cohort.open(trained.cohort)
    images = tmp_path / "images"
    images.mkdir()
    evaluated = {row["sample"]: row for row in read_rows(trained.run / "samples.csv")}
    for name in evaluated:
        np.save(images / f"{name}.npy", np.where(cohort.tissue(name)[..., None], cohort.image(name), 0).astype("f8"))
    alone = tmp_path / "segmenter"
    alone.mkdir()
    for file in (trained.run / "segmenter").iterdir():
        (alone / file.name).write_bytes(file.read_bytes())

    succeed("predict", f"segmenter={alone}", f"input={images}", f"out={tmp_path / 'out'}")

    predicted = read_rows(tmp_path / "out" / "areas.csv")
    assert {row["sample"] for row in predicted} == set(evaluated)
    for row in predicted:
        name = row["sample"]
        assert row["area_fraction"] == f"{float(evaluated[name]['area_fraction']):g}" or float(
            row["area_fraction"]
        ) == float(evaluated[name]["area_fraction"])
        mapped, judged = (np.load(folder / "maps" / f"{name}.npy") for folder in (tmp_path / "out", trained.run))
        np.testing.assert_array_equal(mapped, judged)
        mask = np.asarray(Image.open(tmp_path / "out" / "maps" / f"{name}_mask.png")) > 0
        threshold = load_segmenter(alone).threshold
        np.testing.assert_array_equal(mask, threshold.apply(mapped, cohort.tissue(name)))


def test_predict_takes_a_cohort_a_manifest_or_one_image(trained, tmp_path):
    name = Cohort.open(trained.cohort).infos[0].name
    image = Cohort.open(trained.cohort).image(name)
    np.save(tmp_path / "one.npy", image)
    (tmp_path / "list.csv").write_text("sample,image\nfirst,one.npy\n")
    for given, expected in (("one.npy", ["one"]), ("list.csv", ["first"])):
        # The second replaces the first, which it may not be mixed with.
        into = ("out=out", "overwrite=true", "threshold=0.5")
        succeed("predict", f"run={trained.run}", f"input={given}", *into, cwd=tmp_path)
        rows = read_rows(tmp_path / "out" / "areas.csv")
        assert [row["sample"] for row in rows] == expected
        assert rows[0]["threshold"] == "0.5"
    succeed("predict", f"run={trained.run}", f"input={trained.cohort}", f"out={tmp_path / 'all'}")
    assert len(read_rows(tmp_path / "all" / "areas.csv")) == len(Cohort.open(trained.cohort).infos)


def test_the_extracted_segmenter_needs_no_framework(trained):
    """In a process where Lightning, Hydra, OmegaConf and Zarr cannot be imported."""
    script = f"""
import sys
for name in ("pytorch_lightning", "lightning", "hydra", "omegaconf", "zarr", "torchmetrics", "wandb"):
    sys.modules[name] = None
import numpy as np, compseg
segmenter = compseg.load_segmenter({str(trained.run)!r})
cube = np.random.default_rng(0).random((13, 17, segmenter.channels.count)).astype("f4")
cube[:3] = 0
activation = segmenter(cube)
assert activation.shape == (13, 17) and activation.dtype == np.float32
assert not activation[:3].any() and activation[3:].all()
print(segmenter.threshold.value, segmenter.channels.unit, segmenter.provenance["epoch"])
"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"[\d.]+ cm-1 \d", done.stdout)


def test_evaluate_again_gives_the_same_and_takes_a_fixed_threshold(trained, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    before = (run / "metrics.json").read_text()
    (run / "metrics.json").unlink()
    succeed("evaluate", f"run={run}")
    assert (run / "metrics.json").read_text() == before


def test_a_trained_run_repeats_to_the_last_digit(trained, tmp_path):
    succeed("train", *tiny(trained.cohort, tmp_path / "again"), "evaluation.split=none")
    drop = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
    assert drop(history_of(tmp_path / "again")) == drop(history_of(trained.run))


@pytest.mark.slow
def test_workers_change_nothing(trained, tmp_path):
    """Batches read by two forkserver processes, nothing cached, teach what batches read in this process teach."""
    streamed = ("data.cache=none", "data.workers=2", "evaluation.split=none")
    succeed("train", *tiny(trained.cohort, tmp_path / "streamed", *streamed))
    losses = [[row["train/loss"] for row in history_of(run)] for run in (tmp_path / "streamed", trained.run)]
    assert losses[0] == losses[1]


def test_a_phantom_made_otherwise_is_refused(trained, tmp_path):
    done = run_verb("train", *tiny(trained.cohort, tmp_path / "run", "data.source.seed=5"))
    assert done.returncode == 1
    assert "seed" in done.stderr
    assert "data.path" in done.stderr
    assert "Traceback" not in done.stderr
