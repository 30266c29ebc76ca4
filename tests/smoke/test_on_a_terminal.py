"""What only somebody who sits before a terminal is told."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from running import HANGS, command, environment, run_verb

FAILING = {
    "train": lambda folder: [f"data.path={folder / 'none.zarr'}", "data=cohort", f"hydra.run.dir={folder / 'run'}"],
    "evaluate": lambda folder: [f"run={folder / 'none'}"],
}


def on_a_terminal(verb: str, arguments: list[str], cwd: Path) -> str:
    """What the verb writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    try:
        size = {"COLUMNS": "100", "LINES": "40"}
        process = subprocess.Popen(
            command(verb, *arguments), cwd=cwd, env=environment(**size), stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        written = b"".join(iter(lambda: _read(ours), b""))
        process.wait(HANGS)
    finally:
        os.close(ours)
    return written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.parametrize("verb", FAILING)
def test_it_hears_at_once_that_libraries_are_loaded(verb, tmp_path):
    arguments = FAILING[verb](tmp_path)
    lines = on_a_terminal(verb, arguments, tmp_path).splitlines()
    assert f"compseg {verb}: loading takes some seconds" in lines[:2]
    assert all(len(line) <= 100 for line in lines if str(tmp_path) not in line)
    assert "loading takes" not in run_verb(verb, *arguments, cwd=tmp_path).stderr
