"""Signals end a run in order, in the middle of an epoch too, and it goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from compseg.errors import Stopped
from compseg.faults import signals
from compseg.faults.signals import STOPS, StopSignals
from running import HANGS, history_of, run_here, tiny
from signalled import signal_at

# Dropout, turns and shuffles draw random numbers; none may depend on where the run was broken.
OPTIONS = ("trainer.max_epochs=3", "model.dropout=0.3", "evaluation.split=none", "data.batch_size=4")


def train(*arguments: str) -> int:
    return run_here("train", *arguments)


def numbers(run: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history_of(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "more"),
    [
        (signal.SIGTERM, ()),
        (signal.SIGUSR1, ("trainer.accumulate_grad_batches=2", "data.cache=none", "data.workers=1")),
    ],
    ids=["SIGTERM", "SIGUSR1 while accumulating, with a worker"],
)
def test_stopped_in_mid_epoch_and_resumed_equals_unbroken(trained, tmp_path, capfd, number, more):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(*tiny(trained.cohort, whole, *OPTIONS, *more)) == 0
    arguments = tiny(trained.cohort, broken, *OPTIONS, *more)
    capfd.readouterr()

    # A step that accumulates is not the last one: the next is taken too.
    assert train(*arguments, signal_at(number, epoch=1, step=2 if more else 3)) == 128 + number
    complaint = last_line(capfd.readouterr().err)
    assert f"stopped by {number.name} in epoch 1 after step 4 of " in complaint
    assert f"hydra.run.dir={broken} trainer.resume=auto" in complaint
    checkpoint = torch.load(broken / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["epoch_sums"]["statistics"][0] == 4 * 4, "samples of the unfinished epoch"
    assert [row["epoch"] for row in history_of(broken)] == [0]

    assert train(*arguments, "trainer.resume=auto") == 0
    for one, other in zip(numbers(whole), numbers(broken), strict=True):
        assert other == pytest.approx(one, abs=1e-6, rel=1e-6)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(broken)[name], tensor, atol=0, rtol=0)


class SignalInValidation(Callback):
    def on_validation_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_validation_waits_for_the_end_of_the_epoch(trained, tmp_path, capfd):
    """The checkpoint of that epoch is written, however short a time ago the last one was."""
    run = tmp_path / "run"
    options = (*OPTIONS, "callbacks.best_and_last.seconds=1000")
    callback = f"+callbacks.signalled._target_={__name__}.SignalInValidation"
    assert train(*tiny(trained.cohort, run, *options, callback)) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM before epoch 2; " in last_line(capfd.readouterr().err)
    assert [row["epoch"] for row in history_of(run)] == [0, 1]
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["epoch_sums"]) == (1, None)


@pytest.mark.parametrize("number", STOPS)
def test_outside_of_training_a_signal_ends_the_run_at_once(tmp_path, number):
    before = signal.getsignal(number)
    signals = StopSignals(tmp_path)
    with pytest.raises(Stopped, match=f"stopped by {number.name}; ") as stopped, signals.caught():
        os.kill(os.getpid(), number)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def ended_by(body) -> int:
    """Runs a function in a forked process; the signal that ended it, 0 if none did."""
    child = os.fork()
    if not child:
        try:
            body()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("echo", "code"), [(60.0, 0), (0.0, -signal.SIGTERM)], ids=["an echo is not", "later is"])
def test_a_second_signal_ends_the_run_at_once(tmp_path, monkeypatch, echo, code):
    monkeypatch.setattr(signals, "ECHO_SECONDS", echo)

    def told_twice() -> None:
        with StopSignals(tmp_path).caught() as signals, signals.remembered():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    assert ended_by(told_twice) == code


HEARING = """
import signal
from compseg.faults.signals import STOPS, forkserver_with_signals_blocked

if __name__ == "__main__":
    workers = forkserver_with_signals_blocked().Pool(1)
    deaf = set(STOPS) <= workers.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ()))
    workers.close()  # and not as a context, which ends in SIGTERM: the worker may not hear it, and would be waited for
    workers.join()
    print(deaf, bool(set(STOPS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""


def test_loader_workers_do_not_hear_the_signals(tmp_path):
    """In a process of its own: here another test may have started the one server that a process has."""
    (tmp_path / "hearing.py").write_text(HEARING)
    done = subprocess.run([sys.executable, tmp_path / "hearing.py"], capture_output=True, text=True, timeout=HANGS)
    assert done.stdout.split() == ["True", "False"], done.stderr


COMPILING = """
import os, signal, time
from compseg.faults.signals import start_compilers_with_signals_blocked

if __name__ == "__main__":
    start_compilers_with_signals_blocked()
    from torch._inductor.async_compile import AsyncCompile
    compilers = AsyncCompile.process_pool()
    compilers.submit(abs, -1).result(timeout=3600)
    begun = compilers.submit(time.sleep, 2)
    time.sleep(1)
    signal.signal(signal.SIGTERM, lambda *_: print("asked", end=" "))
    os.killpg(os.getpgid(0), signal.SIGTERM)
    print(begun.result(timeout=3600))
"""


def test_what_is_being_compiled_when_all_processes_are_signalled_is_finished(tmp_path):
    """As a queue does it, or `timeout`."""
    (tmp_path / "compiling.py").write_text(COMPILING)
    command = [sys.executable, tmp_path / "compiling.py"]
    env = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, env=env, start_new_session=True)
    assert done.stdout.split() == ["asked", "None"], done.stderr


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, ["requeue 4242"]), (signal.SIGTERM, [])])
def test_slurm_gets_its_job_back_when_it_asks_with_its_signal(trained, tmp_path, monkeypatch, capfd, number, requeued):
    """One task of a SLURM job as its processes see it; `scontrol` writes down what it is told."""
    told, tools = tmp_path / "told", tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    job = {"JOB_ID": 4242, "STEP_ID": 0, "JOB_NAME": "train", "NTASKS": 1, "NTASKS_PER_NODE": 1}
    for name, value in {**job, "PROCID": 0, "LOCALID": 0, "NODEID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    arguments = [item for item in tiny(trained.cohort, tmp_path, *OPTIONS) if not item.startswith("hydra.run.dir")]
    assert train(*arguments, signal_at(number, epoch=0, step=1)) == 128 + number
    # The folder has the job's number, which it keeps in the queue, so that the same command finds it again.
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["compseg_slurm-4242-0"]
    assert (told.read_text().splitlines() if told.exists() else []) == requeued
    assert ("SLURM job 4242: back in the queue" in capfd.readouterr().out) == bool(requeued)
    assert train(*arguments, "trainer.resume=auto", "trainer.max_epochs=1") == 0
    assert len(history_of(tmp_path / "outputs/compseg_slurm-4242-0")) == 1
