"""The verbs from Python: typed results, the verbs' own errors, and the traps of a package whose modules are verbs."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compseg
from compseg.api import Comparison, Judged, Prediction, Run, _call
from running import tiny

QUICK = ("trainer.max_epochs=1", "callbacks.pictures.every=0", "evaluation.report=false")


def test_dir_lists_what_there_is():
    assert dir(compseg) == sorted(compseg.__all__)
    assert {"train", "predict", "load_segmenter", "CompsegError"} <= set(dir(compseg))
    for name in compseg.__all__:
        assert getattr(compseg, name) is not None


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, compseg; assert not {'torch', 'hydra'} & set(sys.modules); print(callable(compseg.train))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"


def test_an_imported_module_can_still_be_called():
    module = importlib.import_module("compseg.train")
    assert compseg.train is module
    with pytest.raises(compseg.CompsegError, match="expected 'key=value'"):
        compseg.train("-m")


def test_a_run_from_python_is_that_of_the_command_line(trained, tmp_path, capfd):
    run = compseg.train(*tiny(trained.cohort, tmp_path / "run", *QUICK), seed=3, name="from Python: 1")
    assert isinstance(run, Run)
    assert run.folder == tmp_path / "run"
    assert run.report is None
    assert len(run.history) == 1
    assert 0 <= run.metrics["test/area_auc"] <= 1
    assert f"{'test/area_auc':28s} {run.metrics['test/area_auc']:.3f}" in repr(run)
    assert "epoch 0" in capfd.readouterr().out

    segmenter, cube = run.segmenter(), np.random.default_rng(0).random((20, 20, 8), np.float32)
    np.save(tmp_path / "one.npy", cube)
    found = compseg.predict(run=run.folder, input=tmp_path / "one.npy", out=tmp_path / "maps", device="cpu")
    assert isinstance(found, Prediction)
    assert np.array_equal(found.map("one"), segmenter(cube))
    assert float(found.areas[0]["area_fraction"]) == pytest.approx(segmenter.mask(cube).mean(), abs=1e-5)
    assert "one" in repr(found)
    with pytest.raises(compseg.CompsegError, match=r"two.npy: no such map; .*areas.csv lists"):
        found.map("two")


def test_an_evaluation_says_where_its_metrics_are(trained, tmp_path):
    judged = compseg.evaluate(run=trained.run, split="val", report=False, device="cpu", out=tmp_path / "judged")
    assert isinstance(judged, Judged)
    assert judged.folder == tmp_path / "judged"
    assert "val/area_auc" in judged.metrics


def test_a_problem_is_the_line_of_the_verb(tmp_path):
    with pytest.raises(compseg.CompsegError, match=r"^run: .*nowhere|^.*nowhere: no") as error:
        compseg.evaluate(run=tmp_path / "nowhere")
    assert "\n" not in str(error.value)
    with pytest.raises(compseg.CompsegError, match="did you mean 'unet'"):
        compseg.train(model="unett")


def test_an_error_of_the_program_is_no_error_of_the_user(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "nowhere"))
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        _call("no_verb", (), {})


@pytest.mark.slow
def test_the_page_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chance, rows = np.random.default_rng(0), ["sample,image,label"]
    Path("images").mkdir()
    for number in range(40):
        label, cube = number % 2, chance.random((16, 16, 8), np.float32) + 1
        cube[4:12, 4:12, 2] += label
        np.save(f"images/{number}.npy", cube)
        rows.append(f"s{number},images/{number}.npy,{label}")
    Path("labels.csv").write_text("\n".join(rows))
    np.save("images/new.npy", cube)
    page = (Path(__file__).parents[1] / "docs/how-to/python.md").read_text()
    found = {}
    exec(page.split("```python")[1].split("```")[0], found)
    assert repr(found["cohort"]).startswith(
        f"Cohort {Path('data/mine.zarr')}: 40 samples, 20 of them disease; 8 channels"
    )
    assert found["activation"].shape == found["mask"].shape == (16, 16)
    assert isinstance(found["table"], Comparison)
    assert {row["method"] for row in found["table"].table} == {"all_ones", "single_band"}
    assert found["table"].page.is_file()
