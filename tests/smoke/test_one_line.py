"""What is damaged, absent or full: one line that names the file and the fix, and the right exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from running import command, environment, run_here, tiny

RESUME = ("train", *tiny(Path("c.zarr"), Path("run"), "trainer.max_epochs=3", "trainer.resume=auto"))
TRAIN = ("train", *tiny(Path("c.zarr"), Path("new"), "data.source=null"))
EVALUATE = ("evaluate", "run=run")
PREDICT = ("predict", "run=run", "input=cube.npy", "out=mapped")
SWEEP = ("sweep_report", "dir=sweep")


@pytest.fixture
def lab(tmp_path, monkeypatch, trained):
    """A cohort, a run, a sweep of one job, and an image, to be damaged."""
    monkeypatch.chdir(tmp_path)
    Path("c.zarr").symlink_to(trained.cohort)
    shutil.copytree(trained.run, "run")
    shutil.copytree(trained.run, "sweep/0")
    record = {"overrides": ["seed=0"], "status": "finished", "why": "", "seconds": 1.0}
    Path("sweep/0/job.json").write_text(json.dumps(record))
    np.save("cube.npy", np.random.default_rng(0).random((12, 12, 8), np.float32) + 1)
    return tmp_path


def put(name: str, content: bytes) -> Callable[[], object]:
    return lambda: Path(name).write_bytes(content)


def cut(name: str, size: int) -> Callable[[], object]:
    return lambda: Path(name).write_bytes(Path(name).read_bytes()[:size])


LAST = "run/checkpoints/last.ckpt"
AGAIN = "use another"
# What is done, the command, and what its line must hold: the culprit and the fix.
DAMAGED: dict[str, tuple[Callable[[], object] | None, tuple[str, ...], tuple[str, ...]]] = {
    "last.ckpt empty": (put(LAST, b""), RESUME, (LAST,)),
    "last.ckpt text": (put(LAST, b"no checkpoint\n" * 20), RESUME, (LAST,)),
    "last.ckpt cut": (cut(LAST, 5000), RESUME, (LAST,)),
    "collapse.json cut": (put("run/collapse.json", b"{"), RESUME, ("run/collapse.json", "delete it")),
    "collapse.json of others": (put("run/collapse.json", b'[{"a": 1}]'), RESUME, ("run/collapse.json", "delete it")),
    "history.csv of others, resumed": (put("run/history.csv", b"a,b\n1,2\n"), RESUME, ("run/history.csv", "delete it")),
    "history.csv not UTF-8": (put("run/history.csv", b"\xff\xfe\0"), EVALUATE, ("run/history.csv", "delete it")),
    "history.csv of words": (put("run/history.csv", b"epoch\nx\n"), EVALUATE, ("run/history.csv", "delete it")),
    "environment.json cut": (put("run/environment.json", b"{"), EVALUATE, ("run/environment.json", "delete it")),
    "environment.json a list": (put("run/environment.json", b"[]"), EVALUATE, ("run/environment.json", "delete it")),
    "config.yaml not UTF-8": (put("run/config.yaml", b"\xff\xfe"), EVALUATE, ("run/config.yaml", "train again")),
    "config.yaml a list": (put("run/config.yaml", b"- a\n"), EVALUATE, ("run/config.yaml", "train again")),
    "config.yaml of others": (put("run/config.yaml", b"seed: 0\n"), EVALUATE, ("run/config.yaml", "train again")),
    "config.yaml points nowhere": (put("run/config.yaml", b"a: ${b}\n"), EVALUATE, ("run/config.yaml", "train again")),
    "job.json cut": (put("sweep/0/job.json", b"{"), SWEEP, ("sweep/0/job.json", "delete it")),
    "job.json a list": (put("sweep/0/job.json", b"[1]"), SWEEP, ("sweep/0/job.json", "delete it")),
    "job.json of others": (put("sweep/0/job.json", b'{"a": 1}'), SWEEP, ("sweep/0/job.json", "delete it")),
    "metrics.json cut": (put("sweep/0/metrics.json", b"{"), SWEEP, ("sweep/0/metrics.json", "delete it")),
    "no such device": (None, (*EVALUATE, "device=nonsense"), ("device=nonsense", "device=auto")),
    "device=cuda without one": (None, (*PREDICT, "device=cuda:7"), ("device=cuda:7", "device=auto")),
    "no such accelerator": (None, (*TRAIN, "trainer.accelerator=nonsense"), ("trainer", "nonsense")),
    "precision=64": (None, (*TRAIN, "trainer.precision=64"), ("trainer.precision=64", "32-true")),
    "tile=-5": (None, (*PREDICT, "tile=-5"), ("tile=-5", "at least 1")),
    "tile=0": (None, (*PREDICT, "tile=0"), ("tile=0", "at least 1")),
    "overlap=-3": (None, (*PREDICT, "overlap=-3"), ("overlap=-3", "number of pixels")),
}


def line_of(capfd: pytest.CaptureFixture[str], verb: str) -> str:
    """The one line of an error; nothing of a traceback beside it."""
    output = "".join(capfd.readouterr())
    lines = [line for line in output.splitlines() if line.startswith(f"compseg {verb}")]
    assert len(lines) == 1, output
    assert "Traceback" not in output
    assert "weights_only" not in output
    return lines[0]


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_and_impossible(lab, case, capfd):
    spoil, (verb, *arguments), words = DAMAGED[case]
    if verb in ("evaluate", "predict") and torch.cuda.is_available() and "cuda" in case:
        pytest.skip("it has one")
    if spoil:
        spoil()
    assert run_here(verb, *arguments) == 1
    line = line_of(capfd, verb)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("refusal", "fix"),
    [(errno.EMFILE, "raise the limit on open files (ulimit -n 4096)"), (errno.EACCES, "check the permissions")],
)
def test_what_the_system_refuses_is_no_damage(lab, refusal, fix, capfd, monkeypatch):
    """Too few file descriptors are not "no cohort"."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal), "c.zarr/zarr.json")

    monkeypatch.setattr("compseg.cohort.store.zarr.open_group", refuse)
    assert run_here("check", "cohort=c.zarr") == 1
    assert line_of(capfd, "check") == f"compseg check: c.zarr/zarr.json: {os.strerror(refusal)}; {fix}"


@pytest.mark.parametrize(
    ("refusal", "fix"), [(errno.EFBIG, "raise the limit on the size of a file"), (errno.EINVAL, "use another")]
)
def test_what_cannot_be_written_has_a_path(lab, refusal, fix, capfd, monkeypatch):
    def refuse(_: int) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "fsync", refuse)
    assert run_here(*PREDICT) == 1
    line = line_of(capfd, "predict")
    assert re.search(rf"mapped/\S+: {os.strerror(refusal)}; .*{fix}", line)
    assert not list(Path("mapped").rglob("*.partial"))


class OutOfMemory(nn.Module):
    """A segmenter that asks for more memory than there is."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Conv2d(channels, 1, 1), kind

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise NO_MEMORY[self.kind]
        return self.layer(image)


NO_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
}


@pytest.mark.parametrize("kind", NO_MEMORY)
def test_out_of_memory_in_a_step(lab, kind, capfd):
    model = f"model={{_target_: {__name__}.OutOfMemory, channels: 8, kind: {kind}}}"
    arguments = [item for item in TRAIN[1:] if not item.startswith("model.")]
    assert run_here("train", *arguments, "method=mean", "~model", f"+{model}") == 1
    line = line_of(capfd, "train")
    assert "out of memory" in line
    assert "data.batch_size" in line


def test_a_full_or_closed_output_ends_in_a_line(tmp_path):
    full = os.open("/dev/full", os.O_WRONLY) if Path("/dev/full").exists() else None
    read, closed = os.pipe()
    os.close(read)
    closed_said = "compseg check: its output was closed before all was printed; files are whole\n"
    # A reader of help has seen enough.
    cases = [("--help", closed, 128 + signal.SIGPIPE, ""), ("--cfg=job", closed, 128 + signal.SIGPIPE, closed_said)]
    if full is not None:
        said = "compseg check: standard output: No space left on device; free some space or write elsewhere\n"
        cases.append(("--help", full, 1, said))
    for flag, output, code, said in cases:
        words = command("check", flag)
        done = subprocess.run(words, stdout=output, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
        assert (done.returncode, done.stderr) == (code, said)
    os.close(closed)


def test_ctrl_c_in_training_says_how_to_go_on(lab, capfd):
    """As any other signal: after the step, with a checkpoint of it."""
    import signalled

    assert run_here(*TRAIN, signalled.signal_at(signal.SIGINT, epoch=1, step=0)) == 130
    line = line_of(capfd, "train")
    assert "stopped by SIGINT in epoch 1 after step 1 of " in line
    assert "/new trainer.resume=auto continues it" in line
    assert Path("new/checkpoints/last.ckpt").is_file()
