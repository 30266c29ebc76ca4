"""Workers of a loader end, though they do not hear the signal that torch and Python end processes with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from running import HANGS

# What a run leaves behind: a loader in a cycle, so that only the garbage collector finds it, with all it refers to.
LEFT = """
import gc, multiprocessing, sys
from compseg.batches.loader import Loader, end_workers
from compseg.faults.signals import forkserver_with_signals_blocked as forkserver

def left(loader):
    next(iter(loader))
    loader.itself = loader

if __name__ == "__main__":
    left(Loader([1, 2], num_workers=1, persistent_workers=True, multiprocessing_context=forkserver()))
    gc.collect()
    if sys.argv[1] == "told":
        end_workers()
        print(multiprocessing.active_children())
"""


@pytest.mark.parametrize(("when", "printed"), [("told", "[]"), ("at exit", "")])
def test_workers_end_when_told_and_with_the_process(tmp_path, when, printed):
    (tmp_path / "left.py").write_text(LEFT)
    command = [sys.executable, tmp_path / "left.py", when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


KILLED = """
import os, signal
from compseg.batches.loader import Loader
from compseg.faults.signals import forkserver_with_signals_blocked as forkserver

if __name__ == "__main__":
    loader = Loader([1, 2], num_workers=1, persistent_workers=True, multiprocessing_context=forkserver())
    next(iter(loader))
    print(loader._iterator._workers[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the table of processes that Linux has")
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, tmp_path / "killed.py"], stdout=subprocess.PIPE, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == -signal.SIGKILL
    worker, deadline = int(done.stdout), time.monotonic() + HANGS
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = running(worker)
    if left:
        os.kill(worker, signal.SIGKILL)
    assert not left
