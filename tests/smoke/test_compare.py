"""Real comparisons as a user starts them: killed and continued, judged later, with a method that fails."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from running import HANGS, command, environment, run_verb, succeed

TINY = "overrides={model.width:8,data.batch_size:6,trainer.max_epochs:%d,trainer.accelerator:cpu}"


def arguments(cohort: Path, out: Path, *more: str, epochs: int = 2) -> list[str]:
    return [f"cohorts={{tiny: {cohort}}}", f"out={out}", TINY % epochs, *more]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_killed_comparison_is_continued_and_judged_on_test_samples_later(trained, tmp_path):
    out = tmp_path / "my comparison"
    given = arguments(trained.cohort, out, "methods=[mean,paper2020]", "seeds=2", "jobs=2", epochs=6)
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command("compare", *given, "split=val"), env=environment(), stdout=said, stderr=subprocess.STDOUT
        )
        first = out / "tiny" / "unet_shallow" / "mean" / "seed_0"
        deadline = time.monotonic() + HANGS
        while not (first / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, (tmp_path / "said.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait()
    before = (tmp_path / "said.txt").read_text()
    assert before.startswith("4 jobs; 2 at once, 1 thread each, on ")
    assert "4 jobs to do, about " in before  # said before the first of them
    assert "by trial epochs" in before

    printed = succeed("compare", *given, "split=val")
    assert printed.splitlines()[-1] == str(out / "comparison.md")
    rows = rows_of(out)
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("mean", "0"),
        ("paper2020", "0"),
        ("mean", "1"),
        ("paper2020", "1"),
    ]
    assert [(row["status"], row["epochs"]) for row in rows] == [("finished", "6")] * 4
    assert not [key for key in rows[0] if key.startswith("test/")]
    assert not (first / "samples.csv").exists()
    assert (out / "comparison.png").stat().st_size > 5000

    weights = first / "checkpoints" / "last.ckpt"
    trained_at = weights.stat().st_mtime_ns
    seconds = [row["seconds"] for row in rows]
    succeed("compare", *given, "split=test")
    assert weights.stat().st_mtime_ns == trained_at
    rows = rows_of(out)
    assert [row["seconds"] for row in rows] == seconds  # what training took
    for row in rows:
        run = out / "tiny" / "unet_shallow" / row["method"] / f"seed_{row['seed']}"
        assert float(row["test/pixel_ap"]) == json.loads((run / "metrics.json").read_text())["test/pixel_ap"]


@pytest.mark.slow
def test_each_array_is_left_out_and_a_failing_method_stops_nothing(trained, tmp_path):
    broken = "{method: mean, name: broken, overrides: {model.norm: none_such}}"
    methods = f"methods=[all_ones,{broken}]"
    given = arguments(trained.cohort, tmp_path, methods, "seeds=1", "cv=group", "split=val", "jobs=2", epochs=1)
    done = run_verb("compare", *given)
    rows = {(row["method"], row["held_out"]): row for row in rows_of(tmp_path)}
    assert {key for key in rows} == {(method, array) for method in ("all_ones", "broken") for array in ("A1", "A2")}
    config = (tmp_path / "tiny" / "unet_shallow" / "all_ones" / "without_A2" / "seed_0" / "config.yaml").read_text()
    assert "held_out: A2" in config
    assert "held_out_as: val" in config
    assert done.returncode == 1, done.stdout + done.stderr
    assert {row["status"] for (method, _), row in rows.items() if method == "all_ones"} == {"finished"}
    assert {row["status"] for (method, _), row in rows.items() if method == "broken"} == {"failed"}
    assert "2 of 4 jobs not finished, tiny/unet_shallow/broken/without_A1/seed_0 first" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_folds_of_patients_are_pooled_and_their_segmenters_are_one(trained, tmp_path):
    given = arguments(trained.cohort, tmp_path, "methods=[compseg]", "seeds=1", "cv=patient", "folds=2", epochs=1)
    said = succeed("compare", *given, "repeats=2", "split=test", "metrics=[area_auc]", "jobs=2")
    rows = rows_of(tmp_path)
    assert [row["held_out"] for row in rows] == [f"repeat {r}, fold {f} of 2" for r in (1, 2) for f in (1, 2)]
    seen = {}
    for row in rows:
        (folder,) = tmp_path.glob(f"tiny/*/compseg/without_*{row['held_out'][7]}*{row['held_out'][15]}_of_2/seed_0")
        with (folder / "samples.csv").open() as file:
            for sample in csv.DictReader(file):
                seen.setdefault((row["held_out"][:8], sample["patient"]), set()).add(row["held_out"])
    assert all(len(folds) == 1 for folds in seen.values())  # no patient in two folds
    with (tmp_path / "pooled.csv").open() as file:
        pooled = {row["metric"]: row for row in csv.DictReader(file)}
    assert {"area_auc", "dice_mean", "healthy_area_fraction"} <= set(pooled)
    assert pooled["area_auc"]["rounds"] == "2"
    assert f"all folds together: {tmp_path / 'pooled.csv'}" in said
    place = tmp_path / "tiny/unet_shallow/compseg/ensemble"
    assert f"one segmenter of all folds: {place}" in said
    np.save(tmp_path / "one.npy", np.zeros((20, 20, 8), np.float32))
    succeed("predict", f"segmenter={place}", f"input={tmp_path / 'one.npy'}", f"out={tmp_path / 'maps'}")
    assert json.loads((place / "ensemble.json").read_text())["members"] == 4
