"""Every use of private parts of PyTorch, Lightning and Optuna, in one place: they may change with any release.

`tests/test_private.py` has a test for each, which says what breaks here when it changes. All of them are
imported inside the functions, because they take seconds.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial
    from pytorch_lightning.strategies import ModelParallelStrategy

_STARTED: list[subprocess.Popen[bytes]] = []  # ranks that this process has started, whichever fit it was for


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning from catching signals.

    Its handlers call collectives from wherever the signal finds a rank; the others then wait for ever.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def cluster_environment(trainer: pl.Trainer) -> ClusterEnvironment:
    """What Lightning found out about how the processes were started; strategies of one device do not show it."""
    return trainer._accelerator_connector.cluster_environment


def start_other_ranks(trainer: pl.Trainer) -> None:
    """Start the other ranks of this machine, unless torchrun, SLURM or an earlier fit has; call it just before `fit`.

    Lightning would do the same in `fit`, but add a thread that ends rank zero by SIGKILL, without a word, when another
    rank has ended; `compseg.faults.watchdog` says which and how. It starts nothing once the ranks are there: those of
    an earlier fit train on in this one.
    """
    from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
    from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        environment = launcher.cluster_environment
        environment.validate_settings(num_devices=launcher.num_processes, num_nodes=launcher.num_nodes)
        if not environment.creates_processes_externally:
            launcher._call_children_scripts()
            _STARTED.extend(launcher.procs)
    if trainer.world_size > 1:
        _set_num_threads_if_needed(num_processes=trainer.num_devices)


def started_ranks() -> Sequence[subprocess.Popen[bytes]]:
    """All ranks that `start_other_ranks` has started so far, from 1 on."""
    return _STARTED


def share_among_all_devices(strategy: ModelParallelStrategy) -> None:
    """Let a strategy share the network among all devices of all machines; before its `setup_environment`.

    The number is an argument of its constructor, which knows neither machines nor devices yet.
    """
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes


def shared_memory(size: int) -> torch.UntypedStorage:
    """Bytes that another process can map: a worker that fills them has nothing left to copy."""
    import torch

    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
    return storage


def end_workers_of(iterator: Iterator[Any]) -> None:
    """End the workers of a DataLoader's iterator in order, and wait for them."""
    iterator._shutdown_workers()  # type: ignore[attr-defined]


def start_compilers() -> None:
    """Start the processes in which torch compiles, before the first compilation would."""
    from torch._inductor.async_compile import AsyncCompile

    AsyncCompile.warm_pool()


def open_trial(study: Study, trial: FrozenTrial) -> Trial:
    """A running trial as an object that reports to its study, for processes other than the one that asked for it."""
    from optuna import Trial

    return Trial(study, trial._trial_id)
