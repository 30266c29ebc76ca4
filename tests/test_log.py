"""A run speaks once, and `compseg.log` costs nobody the import of Lightning."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from io import StringIO
from types import SimpleNamespace

import pytest

from compseg.log import Loading, Unrepeated, Wrapped, console, log
from running import HANGS

TOLD = """
import logging, sys
from compseg.log import log, rank
logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
log(f"first {rank()}")
assert not {"torch", "pytorch_lightning"} & set(sys.modules)
from pytorch_lightning.utilities import rank_zero_only
rank_zero_only.rank = 1 - rank_zero_only.rank  # as a strategy does that knows better
log(f"then {rank()}")
"""


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, "first 0"), ({"RANK": "1", "LOCAL_RANK": "0"}, "then 0"), ({"SLURM_PROCID": "1"}, "then 0")],
)
def test_rank_zero_speaks_before_lightning_is_there_and_after(monkeypatch, environment, said):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, timeout=HANGS)
    assert done.stdout.split("\n") == [said, ""], done.stderr


def test_lines_are_broken_between_words_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    path = "/a/path/that/is/longer/than/the/terminal"
    record = logging.makeLogRecord({"msg": f"run folder: {path} and more words"})
    formatter = Wrapped("%(message)s")
    assert formatter.format(record) == record.msg
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    lines = formatter.format(record).splitlines()
    assert [line.strip() for line in lines] == [
        "run folder:",
        "/a/path/that/is/longer/than/the/terminal",
        "and more words",
    ]


def test_a_line_that_comes_again_at_once_is_told_once():
    told, logger = StringIO(), logging.Logger("once")
    handler = logging.StreamHandler(told)
    handler.addFilter(Unrepeated())
    logger.addHandler(handler)
    for line in ("weights of %s", "weights of %s", "epoch of %s", "weights of %s"):
        logger.info(line, "a file")
    logger.info("weights of %s", "another file")
    assert told.getvalue().splitlines() == [
        "weights of a file",
        "epoch of a file",
        "weights of a file",
        "weights of another file",
    ]


@pytest.mark.parametrize(("stderr", "stdout", "to_stderr"), [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1)])
def test_what_moves_is_shown_on_the_terminal_that_there_is(monkeypatch, stderr, stdout, to_stderr):
    for name, is_terminal in (("stderr", stderr), ("stdout", stdout)):
        monkeypatch.setattr(sys, name, SimpleNamespace(isatty=lambda answer=is_terminal: bool(answer)))
    assert console().stderr is bool(to_stderr)


@pytest.mark.parametrize("speak", [lambda: log("run folder: run"), console])
def test_somebody_who_waits_hears_what_is_imported_until_something_else_is_told(monkeypatch, tmp_path, speak):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("slow_library", "fast_library", "late_library"):
        (tmp_path / f"{name}.py").touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    clock, told = iter((0.0, 1.0, 2.5, 3.0)), StringIO()
    monkeypatch.setattr("compseg.log.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(sys, "meta_path", [Loading("train", told), *sys.meta_path])
    for name in ("fast_library", "slow_library", "fast_library"):
        importlib.import_module(name)
    speak()
    importlib.import_module("late_library")
    assert told.getvalue().splitlines()[1:] == ["compseg train: loading slow_library, 2 s"]
    assert not any(isinstance(finder, Loading) for finder in sys.meta_path)
