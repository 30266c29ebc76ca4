"""A job runs in a process of its own that is forked from one which has imported everything: half a second, not four."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

# By name: a room below the verbs may not import them.
PRELOAD = ["compseg.config", "compseg.training", "compseg.report", "compseg.models", "hydra.core.plugins"]


def run_verb(verb: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Do what `python -m compseg.VERB ARGUMENTS` does, in this process, which then ends.

    Args:
        verb: The verb.
        arguments: Of its command line.
        log: Where what it prints is appended.
        environment: Variables to set, those that name its GPUs above all.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _print_to(log)
    os.environ.update(environment)
    sys.argv = [f"compseg.{verb}", *arguments]
    runpy.run_module(f"compseg.{verb}", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _print_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
