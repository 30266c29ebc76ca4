"""Private parts of other packages do what `compseg.private` takes them for; each test says what breaks if not."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch.utils.data import DataLoader

from compseg import private
from running import HANGS

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Step(pl.LightningModule):
    """One step, in which it looks at the handler of a signal."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.handler = signal.getsignal(signal.SIGTERM)
        return self.weight * batch.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("alone", [True, False])
def test_signals(alone):
    """Else Lightning's handlers replace those of `StopSignals`: a signal stops one rank, and the others wait."""
    trainer, step, before = (
        pl.Trainer(max_steps=1, accelerator="cpu", **QUIET),
        Step(),
        signal.getsignal(signal.SIGTERM),
    )
    if alone:
        private.leave_signals_alone(trainer)
    trainer.fit(step, DataLoader(torch.ones(1)))
    assert (step.handler is before) == alone


def test_the_cluster_environment_of_one_device():
    """Else a SLURM job of one task is not put back into the queue when its time is up."""
    own = LightningEnvironment()
    trainer = pl.Trainer(accelerator="cpu", devices=1, plugins=[own], **QUIET)
    assert private.cluster_environment(trainer) is own


def test_the_other_ranks_are_started_once_and_not_observed(monkeypatch):
    """Else `trainer.devices=2` trains on one device, or Lightning kills rank zero before it can say why."""
    monkeypatch.setattr(private, "_STARTED", [])
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    threads, torch_threads = threading.active_count(), torch.get_num_threads()
    asked = []
    monkeypatch.setattr(subprocess, "Popen", lambda _, env, **__: asked.append(env["LOCAL_RANK"]) or "a process")
    for _ in range(2):
        trainer = pl.Trainer(accelerator="cpu", devices=3, strategy=DDPStrategy(), **QUIET)
        private.start_other_ranks(trainer)
        assert private.started_ranks() == ["a process"] * 2  # also in the second fit, which starts none
        assert "OMP_NUM_THREADS" in os.environ
    assert asked == ["1", "2"]
    assert trainer.strategy.launcher.cluster_environment.creates_processes_externally  # so `fit` starts none
    assert threading.active_count() == threads
    torch.set_num_threads(torch_threads)


def test_nothing_is_started_for_one_device(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    private.start_other_ranks(pl.Trainer(accelerator="cpu", devices=1, **QUIET))


def test_shares_are_as_many_as_devices():
    """Else `trainer=fsdp` copies the network to each machine, or ends where it has several."""
    strategy = ModelParallelStrategy(tensor_parallel_size=1)
    strategy.parallel_devices, strategy.num_nodes = [torch.device("cpu")] * 3, 2
    before = strategy._data_parallel_size
    private.share_among_all_devices(strategy)
    assert (before, strategy._data_parallel_size) == ("auto", 6)


def test_memory_of_a_worker_is_shared():
    """Else each batch that a worker reads is copied once more."""
    storage = private.shared_memory(64)
    assert (storage.is_shared(), storage.nbytes()) == (True, 64)


def test_workers_end_when_told():
    """Else they outlive a run, or it waits for them: they do not hear the signal that torch would send."""
    iterator = iter(DataLoader(torch.ones(2), num_workers=1, multiprocessing_context="fork"))
    workers = list(iterator._workers)
    private.end_workers_of(iterator)
    assert [worker.exitcode for worker in workers] == [0]


COMPILERS = """
import os
from compseg.private import start_compilers
from torch._inductor.async_compile import AsyncCompile
start_compilers()
before = AsyncCompile.process_pool()
print(before.submit(abs, -1).result(timeout=3600))
os._exit(0)
"""


def test_compilers_start():
    """Else they hear the signals that stop a run, and torch waits for ever for one that has ended."""
    env = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", COMPILERS], capture_output=True, text=True, timeout=HANGS, env=env)
    assert done.stdout.split() == ["1"], done.stderr


def test_a_running_trial_can_be_opened_by_another_process():
    """Else a job of a search cannot report its epochs, and no job is pruned."""
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study()
    asked = study.ask()
    (frozen,) = study.get_trials(deepcopy=False)
    trial = private.open_trial(study, frozen)
    trial.report(0.5, step=3)
    assert trial.number == asked.number
    assert study.trials[0].intermediate_values == {3: 0.5}


SOURCE = Path(private.__file__).parent


def private_names(file: Path) -> set[str]:
    """Names with an underscore that a file takes from another object than itself, or imports from a library."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in OWN):
            found.add(node.attr)
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("compseg"):
            found |= {*(alias.name for alias in node.names), *(node.module or "").split(".")}
    return {name for name in found - DOCUMENTED if re.match("_[^_]", name)}


OWN = ("self", "cls", "os")  # `os._exit` is documented, and so are these:
DOCUMENTED = {"_replace", "_asdict", "_fields", "_target_"}


@pytest.mark.parametrize("file", [str(file.relative_to(SOURCE)) for file in sorted(SOURCE.rglob("*.py"))])
def test_private_names_are_used_in_one_place(file):
    if file != "private.py":
        assert private_names(SOURCE / file) == set()
