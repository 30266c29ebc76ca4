"""Workers of a loader end, though they do not hear the signal that torch and Python end processes with."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What a run leaves behind: a loader in a cycle, so that only the garbage collector finds it, with all it refers to.
LEFT = """
import gc, multiprocessing, sys
from compseg.learning.loader import Loader, end_workers
from compseg.learning.stopping import deaf_forkserver

def left(loader):
    next(iter(loader))
    loader.itself = loader

if __name__ == "__main__":
    left(Loader([1, 2], num_workers=1, persistent_workers=True, multiprocessing_context=deaf_forkserver()))
    gc.collect()
    if sys.argv[1] == "told":
        end_workers()
        print(multiprocessing.active_children())
"""


@pytest.mark.parametrize(("when", "printed"), [("told", "[]"), ("at exit", "")])
def test_workers_end_when_told_and_with_the_process(tmp_path, when, printed):
    (tmp_path / "left.py").write_text(LEFT)
    command = [sys.executable, tmp_path / "left.py", when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr
