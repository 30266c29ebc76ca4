"""A run folder is one run: another is refused or replaced, and what failed at once leaves no folder."""

import shutil

import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.run_folder import KINDS, refuse_other_kind, remove_run
from running import run_here, tiny

QUIET = ("evaluation.split=none", "trainer.enable_progress_bar=false", "trainer.max_epochs=1")


def files_of(run):
    # Hydra writes its own record of a command before any of ours can look.
    mine = [path for path in run.rglob("*") if path.is_file() and ".hydra" not in path.parts and path.suffix != ".log"]
    return {path.relative_to(run): path.read_bytes() for path in mine}


def test_another_run_is_refused_or_replaced(trained, tmp_path, capsys):
    run = shutil.copytree(trained.run, tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    before = files_of(run)
    assert run_here("train", *tiny(trained.cohort, run, *QUIET, "seed=1")) == 1
    said = capsys.readouterr().err
    assert "holds another run; give another hydra.run.dir, trainer.resume=auto to continue it" in said
    assert run_here("train", *tiny(trained.cohort, run, *QUIET, f"trainer.resume={trained.run}")) == 1
    # What cannot be trained replaces nothing.
    for wrong in ("trainer.compile=fast", "data.batch_size=-1", "data.workers=-1", "model.width=-1"):
        assert run_here("train", *tiny(trained.cohort, run, *QUIET, "overwrite=true", wrong)) == 1, wrong
    after = files_of(run)
    after.pop(next((path for path in after if path.name == ".run.lock"), None), None)
    before.pop(next((path for path in before if path.name == ".run.lock"), None), None)
    assert after == before

    assert run_here("train", *tiny(trained.cohort, run, *QUIET, "overwrite=true", "seed=1")) == 0
    left = {path.as_posix() for path in files_of(run)}
    assert {"notes.txt", "config.yaml", "segmenter/segmenter.json"} <= left
    assert not {"report.html", "metrics.json", "samples.csv", "bootstrap.npz"} & left
    remove_run(run)
    assert {path.as_posix() for path in files_of(run)} - {".run.lock"} == {"notes.txt"}


def test_no_report_stands_beside_another_segmenter(trained, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "run")
    before = files_of(run)
    here = ("trainer.resume=auto", "evaluation.split=none")
    assert run_here("train", *tiny(trained.cohort, run, *here)) == 0
    assert not {path for path in before if path.name != ".run.lock"} - set(files_of(run))

    weights = (run / "segmenter/weights.safetensors").read_bytes()
    assert run_here("train", *tiny(trained.cohort, run, *here, "trainer.max_epochs=6")) == 0
    left = {path.as_posix() for path in files_of(run)}
    assert (run / "segmenter/weights.safetensors").read_bytes() != weights
    assert not {"report.html", "metrics.json", "samples.csv", "bootstrap.npz"} & left
    assert not any(path.startswith("maps/") for path in left)
    assert all(path.startswith("figures/epochs/") for path in left if path.startswith("figures/"))
    of_training = {path.as_posix() for path in before if "figures/epochs" in path.as_posix()}
    assert of_training
    assert of_training <= left


def test_what_fails_at_once_leaves_no_folder(trained, tmp_path):
    for wrong in ("optimizer.lrr=1", "seed=high", f"data.path={tmp_path / 'nowhere.zarr'}"):
        more = ("data.source=null",) if "nowhere" in wrong else ()
        assert run_here("train", *tiny(trained.cohort, tmp_path / "new", *QUIET, *more, wrong)) == 1
        assert not (tmp_path / "new").exists(), wrong


def test_what_fails_in_the_default_folder_leaves_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [word for word in tiny(trained.cohort, tmp_path, *QUIET, "seed=high") if "hydra" not in word]
    assert run_here("train", *arguments) == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/other").mkdir()
    assert run_here("train", *arguments) == 1
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["other"]


@pytest.mark.parametrize("held", KINDS)
def test_a_folder_holds_one_kind(tmp_path, held):
    (tmp_path / KINDS[held][0]).touch()
    for kind in KINDS:
        if kind == held:
            refuse_other_kind(tmp_path, kind, "out")
        else:
            with pytest.raises(CompsegError, match=f"holds {held}, beside which {kind} .* give out=NEW"):
                refuse_other_kind(tmp_path, kind, "out")


def test_every_verb_that_writes_refuses_the_folder_of_another(trained, tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.zeros((20, 20, 8), np.float32))
    predict = ("predict", f"run={trained.run}", f"input={tmp_path / 'one.npy'}")
    assert run_here(*predict, f"out={tmp_path / 'maps'}") == 0
    before = files_of(trained.run)
    for words in (
        ("train", *tiny(trained.cohort, tmp_path / "maps", *QUIET, "overwrite=true")),
        (*predict, f"out={trained.run}"),
        ("compare", f"out={trained.run}", "methods=[all_ones]"),
        ("evaluate", f"run={trained.run}", f"out={tmp_path / 'maps'}"),
        ("prepare", f"out={trained.run}", "source=phantom"),
    ):
        capsys.readouterr()
        assert run_here(*words) == 1, words
        said = capsys.readouterr().err.splitlines()[-1]
        assert "out=" in said or "hydra.run.dir=" in said
    assert files_of(trained.run) == before


def test_a_prediction_that_fails_at_its_first_image_leaves_no_folder(trained, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((20, 20, 3), np.float32))
    out = tmp_path / "maps"
    assert run_here("predict", f"run={trained.run}", f"input={tmp_path / 'other.npy'}", f"out={out}") == 1
    assert not out.exists()
