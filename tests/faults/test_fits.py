"""Processes that train several times, over gloo: each fit of a rank ends as its first does, whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from running import HANGS, command, environment, history_of, tiny
from signalled import signal_at

SHORT = ("data.batch_size=4", "evaluation.split=none", "callbacks.pictures.every=0", "trainer.max_epochs=2")
TWO = ("trainer.devices=2",)
# The printed recipe without a norm, in large steps: the maps are empty after the first of them, from any seed.
COLLAPSE = (
    "method=paper2020",
    "optimizer=rmsprop",
    "optimizer.lr=0.05",
    "scheduler=constant",
    "model.norm=none",
)


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "compseg.train"]


def succeed_together(*commands: list[str], cwd: Path) -> str:
    """What commands that run side by side, and must succeed, have printed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(each, env=environment(), cwd=cwd, **pipes) for each in commands]
    try:
        said = [process.communicate(timeout=HANGS) for process in processes]
    finally:
        for process in processes:
            process.terminate()
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return "".join(out for out, _ in said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "again"),
    [
        (("n_init=2",), " is kept"),
        ((*COLLAPSE, "callbacks.collapse.restarts=1"), "training starts again from another seed"),
        (("source@data.source=phantom_null", "method.fallback.n_init=2"), "continues without pseudo-labels"),
    ],
    ids=["several inits", "a restart", "a fallback"],
)
def test_ranks_of_torchrun_fit_again(trained, tmp_path, options, again):
    """The store at which they meet is torchrun's, and outlives each fit."""
    cohort = tmp_path / "null.zarr" if "null" in options[0] else trained.cohort
    arguments = tiny(cohort, tmp_path / "run", *SHORT, *TWO, *options)
    printed = succeed_together([*torchrun("--standalone", "--nproc-per-node=2"), *arguments], cwd=tmp_path)
    assert printed.count(again) == 1
    assert len(history_of(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "segmenter" / "segmenter.json").is_file()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return int(held.getsockname()[1])


@pytest.mark.slow
def test_ranks_of_two_torchruns_fit_again(trained, tmp_path):
    """As on two machines, where ranks watch each other by heartbeats, in each fit."""
    arguments = tiny(trained.cohort, tmp_path / "run", *SHORT, "n_init=2", "trainer.num_nodes=2")
    at = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=localhost", f"--master-port={free_port()}")
    ranks = [[*torchrun(*at, f"--node-rank={rank}"), *arguments] for rank in range(2)]
    assert succeed_together(*ranks, cwd=tmp_path).count(" is kept") == 1
    assert len(history_of(tmp_path / "run")) == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_the_shell_may_end_in_a_later_fit(trained, tmp_path):
    """As with nohup or tmux: nothing that the ranks need is gone with it."""
    orphaned = f"+callbacks.orphaned={{_target_: orphaned.WaitUntilOrphaned, word: {tmp_path}/word}}"
    arguments = tiny(trained.cohort, tmp_path / "run", *SHORT, *TWO, "n_init=2", orphaned)
    shell = ["sh", "-c", f'"$@" & while [ ! -e {tmp_path}/word ]; do sleep 0.1; done', "sh"]
    # It returns when the ranks have ended, for they hold its stdout.
    printed = succeed_together([*shell, *command("train", *arguments)], cwd=tmp_path)
    assert " is kept" in printed, "the watchdog has ended it"
    assert len(history_of(tmp_path / "run")) == 2


@pytest.mark.slow
def test_torchrun_ends_a_rank_whose_other_is_killed(trained, tmp_path):
    """On one machine there are no heartbeats under torchrun, so it has to."""
    killed = signal_at(signal.SIGKILL, epoch=1, step=0, rank=1)
    arguments = tiny(trained.cohort, tmp_path / "run", *SHORT, *TWO, "trainer.max_epochs=500", killed)
    done = subprocess.run(
        [*torchrun("--standalone", "--nproc-per-node=2"), *arguments],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 1
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert len(history_of(tmp_path / "run")) == 1
