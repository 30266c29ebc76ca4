"""Verbs as a user meets them: as processes, on the command line."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from compseg.__main__ import VERBS
from compseg.config import verb
from compseg.config.schema import SCHEMAS
from compseg.errors import CompsegError
from running import HANGS


def run(*arguments, cwd, **environment):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=HANGS, env={**os.environ, **environment}, check=False
    )


@pytest.fixture(scope="module")
def own_conf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\ntrainer: {max_epochs: 1}\nsead: 3\n")
    (folder / "experiment" / "node.yaml").write_text("# @package _global_\nmodel: {depht: 1}\n")
    (folder / "experiment" / "cohort.yaml").write_text("# @package _global_\ncohort: from_a_file.zarr\n")
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sead=3"], "compseg train: sead: no such key; did you mean 'seed'?"),
        (["model=unett"], "compseg train: model=unett: no such option; did you mean 'unet'?"),
        (["experiment=mine"], "compseg train: in experiment/mine.yaml: sead: no such key; did you mean 'seed'?"),
        (["model=unet", "experiment=node"], "compseg train: model.depht: compseg.models.UNet takes no 'depht'"),
    ],
)
def test_an_error_is_one_line(tmp_path, own_conf, arguments, line):
    done = run("compseg.train", "--config-dir", own_conf, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout


def test_debug_shows_the_traceback_too(tmp_path):
    done = run("compseg.check", "cohrt=a", cwd=tmp_path, COMPSEG_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "compseg check: cohrt: no such key; did you mean 'cohort'?"


def test_the_console_entry_hands_over(tmp_path):
    done = run("compseg", "check", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("Look through a cohort")
    assert "cohort  ???  for example data/mine.zarr" in done.stdout
    assert "model:" not in done.stdout  # groups of other verbs
    assert list(tmp_path.iterdir()) == []


HEAVY = {"torch", "pytorch_lightning", "torchmetrics", "numpy", "zarr", "matplotlib", "pandas", "scipy", "optuna"}


@pytest.mark.parametrize("name", VERBS)
def test_help_imports_nothing_heavy(tmp_path, name):
    """A page of words should not wait for torch; only a run loads what its configuration names."""
    done = run("compseg." + name, "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & HEAVY


def test_the_list_of_verbs_imports_no_more_than_python(tmp_path):
    done = run("compseg", "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.stdout.startswith("usage: compseg VERB")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {*HEAVY, "hydra", "omegaconf", "yaml"}


def test_help_shows_groups_and_the_values_asked_for(started, capsys, own_conf):
    def task(cfg):
        """Do nothing.

        Args:
            cfg: Not shown.
        """

    assert started(task, "--help", "cohort=mine.zarr") == 0
    page = capsys.readouterr().out
    assert page.startswith(
        "Do nothing.\n\n== Keys: give key=value ==\n\ncohort  mine.zarr  for example data/mine.zarr\n"
    )
    assert "cfg" not in page.replace("--cfg", "")
    assert "Groups" not in page
    assert started(task, "cohrt=a", "-h") == 1
    assert capsys.readouterr().err == "compseg check: cohrt: no such key; did you mean 'cohort'?\n"
    assert started(task, "-h", "--config-dir", own_conf, "+experiment=cohort") == 0
    assert "cohort  from_a_file.zarr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 0, "usage: compseg VERB"),
        (["--help"], 0, "usage: compseg VERB"),
        (["--version"], 0, "compseg "),
        (["trian"], 1, "no verb 'trian'; did you mean 'train'?"),
        (["zzz"], 1, "verbs: check, compare, doctor, evaluate, export, predict, prepare, report, sweep_report, train"),
    ],
)
def test_the_console_entry(monkeypatch, capsys, arguments, code, words):
    from compseg import __main__

    monkeypatch.setattr(sys, "argv", ["compseg", *arguments])
    if code == 0:
        __main__.main()
        assert words in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit, match=words):
            __main__.main()


def test_every_verb_is_listed():
    assert set(VERBS) == set(SCHEMAS)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Starts a task as the verb `check` in this process and gives its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # set by verbs; put back at the end

    def start(task, *arguments):
        monkeypatch.setattr(sys, "argv", ["check", *(arguments or ["cohort=a"])])
        try:
            verb("check")(task)()
        except SystemExit as end:
            return end.code
        return 0

    return start


def test_an_error_of_the_program_keeps_its_traceback(started):
    def task(cfg):
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        started(task)


def test_an_interrupt_is_one_line(started, capsys):
    def task(cfg):
        raise KeyboardInterrupt

    assert started(task) == 130
    assert capsys.readouterr().err == "compseg check: interrupted; run the same command again\n"


def test_an_interrupted_sweep_says_where_it_goes_on(started, capsys):
    def task(cfg):
        raise KeyboardInterrupt

    assert started(task, "-m", "cohort=a,b", "hydra.sweep.dir=mine") == 130
    said = capsys.readouterr().err
    assert said.endswith("]: interrupted; the same command with hydra.sweep.dir=mine continues it\n")


def test_a_sweep_names_the_job_with_the_error(started, capsys):
    def task(cfg):
        if cfg.cohort == "b":
            raise CompsegError("no such cohort")

    assert started(task, "-m", "cohort=a,b") == 1
    assert capsys.readouterr().err == "compseg check [cohort=b]: no such cohort\n"


def test_ranks_say_which_they_are(started, capsys, monkeypatch):
    def task(cfg):
        raise CompsegError("disk full")

    monkeypatch.setenv("LOCAL_RANK", "2")
    assert started(task) == 1
    assert capsys.readouterr().err == "compseg check [rank 2]: disk full\n"


def test_called_with_a_configuration_the_function_runs_directly():
    @verb("check")
    def task(cfg):
        if cfg.cohort == "bad":
            raise CompsegError("bad")
        return cfg.cohort

    assert task(OmegaConf.create({"cohort": "a"})) == "a"
    with pytest.raises(CompsegError):
        task(OmegaConf.create({"cohort": "bad"}))


def test_a_run_says_first_where_its_files_go_and_last_where_its_report_is(trained):
    lines = trained.printed.splitlines()
    assert f"run folder: {trained.run}" in lines[0]
    assert lines[-1] == f"report: {trained.run / 'report.html'}"
    assert len([line for line in lines if line.startswith("auto:")]) == 1
    assert "trainer.precision=32-true (no GPU)" in (trained.run / "train.log").read_text()
