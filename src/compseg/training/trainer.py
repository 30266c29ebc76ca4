"""Lightning's Trainer with what every CompSegNet run needs.

Resuming, best and last checkpoints, and DDP that leaves sampling to us.
"""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy, Strategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType

from compseg.errors import CompsegError
from compseg.files import atomic_torch
from compseg.run_folder import CHECKPOINTS, LAST


class Trainer(pl.Trainer):
    """Takes every argument of `pytorch_lightning.Trainer`, `resume`, and how a step is computed (`learning.speed`).

    Args:
        resume: None: start anew. `auto`: go on from the run folder's `checkpoints/last.ckpt` if there is one. Otherwise
            a checkpoint, or a run folder that holds one.
        compile: A mode of `torch.compile` for the network; None: it runs as it is.
        memory_format: Of the network's input and weights: `channels_last` or `contiguous`.

    Attributes:
        stops: Whether the run is to end after this epoch, so that `last.ckpt` has to be of it.
    """

    stops = False

    def __init__(
        self,
        *,
        resume: str | None = None,
        compile: str | None = None,
        memory_format: str = "channels_last",
        strategy: str | Strategy = "auto",
        **options: Any,
    ) -> None:
        if strategy == "fsdp":
            strategy = FSDP()
        elif strategy in ("auto", "ddp") and _several(options.get("devices", "auto"), options.get("num_nodes", 1)):
            strategy = DDP()
        options["plugins"] = [*_listed(options.get("plugins")), WholeCheckpoints()]
        # Our sampler shares samples out among ranks by itself; sanity steps would mix into the epoch's sums.
        super().__init__(strategy=strategy, use_distributed_sampler=False, num_sanity_val_steps=0, **options)
        # Its handlers call collectives from wherever the signal finds a rank; `StopBetweenSteps` asks between steps.
        self._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self._refuse_another_number()
        self.resume, self.compile, self.memory_format = resume, compile, memory_format

    @property
    def children(self) -> Sequence[subprocess.Popen[bytes]]:
        """The ranks on this machine that this process has started so far, from 1 on."""
        return getattr(self.strategy.launcher, "procs", [])

    def _refuse_another_number(self) -> None:
        """Each rank would else train alone, in one folder with the others, or wait for those that never come."""
        by, started = _processes()
        if started not in (None, self.world_size):
            raise CompsegError(
                f"{by} has started {started} processes, trainer.num_nodes x trainer.devices are {self.num_nodes} x "
                f"{self.num_devices}; give the number of machines, and of processes on each"
            )

    def checkpoint_to_resume(self) -> Path | None:
        """The checkpoint that `resume` names.

        Raises:
            CompsegError: If a checkpoint is named that does not exist.
        """
        last = Path(self.default_root_dir) / CHECKPOINTS / LAST
        if self.resume is None:
            return None
        if self.resume == "auto":
            return last if last.is_file() else None
        named = Path(self.resume)
        path = named / CHECKPOINTS / LAST if named.is_dir() else named
        if not path.is_file():
            raise CompsegError(
                f"trainer.resume={self.resume}: no checkpoint at {path}; "
                "give a checkpoint, a run folder that has one, or auto"
            )
        return path


def _trainer_signature() -> inspect.Signature:
    theirs = [p for p in inspect.signature(pl.Trainer).parameters.values() if p.name != "use_distributed_sampler"]
    ours = [p for p in inspect.signature(Trainer.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return inspect.Signature([*theirs, *(p for p in ours if p.name != "strategy")])


# So that a misspelt key of the trainer is found before anything starts: `**options` would take any name.
Trainer.__signature__ = _trainer_signature()  # type: ignore[attr-defined]


class BestAndLast(ModelCheckpoint):
    """`checkpoints/best.ckpt` by a monitored figure and `checkpoints/last.ckpt`, after an epoch.

    Args:
        monitor: A logged figure of the validation samples.
        mode: `min` or `max`.
        after: Share of the epochs that pass before one may be the best, in [0, 1). While steps are large, the figure
            of few validation samples jumps, and the lowest is a matter of luck.
        seconds: Least time from one `last.ckpt` to the next, for on a GPU an epoch may take less time than writing it.
            A run that is killed has that and an unfinished epoch to do again; one that is asked to end has not.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", after: float = 0.0, seconds: float = 10.0) -> None:
        self.after, self.seconds, self._written = after, seconds, -math.inf
        # Saved when the epoch has ended, validation included: a resumed run starts at the next epoch, not in the middle
        # of this one.
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename="best",
            save_last=True,
            save_on_train_epoch_end=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep checkpoints in the run folder, wherever a logger keeps its files."""
        self.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, and as the best if it is; Lightning would save the last one only where it is the best."""
        epochs, done = max(trainer.max_epochs or 0, 0), trainer.current_epoch + 1
        # The last one may be the best in any case: a run must have one.
        if done > self.after * epochs or done == epochs or trainer.should_stop:
            super().on_train_epoch_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        if self._due(trainer):
            super()._save_last_checkpoint(trainer, monitor_candidates)
            self._written = time.monotonic()

    def _due(self, trainer: pl.Trainer) -> bool:
        ends = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        waited = time.monotonic() - self._written >= self.seconds
        # Ranks write one checkpoint together, and their clocks differ.
        due: bool = trainer.strategy.broadcast(ends or waited or getattr(trainer, "stops", False))
        return due


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is whole and on the disk.

    Lightning writes it to the folder for temporary files, which is another disk as a rule: it is then copied into its
    place, and where that disk is full, or the process killed meanwhile, the last good checkpoint is gone.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Write one."""
        atomic_torch(path, checkpoint)


class Launcher(_SubprocessScriptLauncher):
    """Starts the other ranks of this machine, without Lightning's thread that looks after them.

    That one ends rank zero by SIGKILL, without a word, when another rank has ended; `Watch` says which and how.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any) -> Any:
        """Start them unless torchrun or SLURM has, then call `function`."""
        del trainer
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


class _Launching(ParallelStrategy):
    num_nodes: int

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, len(self.parallel_devices or []), self.num_nodes)


class DDP(_Launching, DDPStrategy):
    """A copy of the model on every device."""

    def __init__(self, **options: Any) -> None:
        # Buffers (the standardisation) never change while training; broadcasting them would make ranks wait for each
        # other in validation, where they may have different numbers of batches.
        super().__init__(**{"broadcast_buffers": False, **options})


class FSDP(_Launching, ModelParallelStrategy):
    """A share of the network on every device, for one that a device cannot hold (PyTorch's `fully_shard`).

    Checkpoints are whole files, as with any other strategy. See `CompSegNet.configure_model`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_distributed_checkpoint": False, "tensor_parallel_size": 1, **options})

    def setup_environment(self) -> None:
        """Share among all devices of all machines, which are known now."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Hand out shares of a whole checkpoint, which another strategy may have written.

        Lightning's own would take weights that lie channels_last in the file for contiguous ones.
        """
        del weights_only
        assert self.model is not None
        read: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        checkpoint: dict[str, Any] = apply_to_collection(read, torch.Tensor, torch.Tensor.contiguous)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint.pop("state_dict"), options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            by_name = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, by_name, options=options)
        return checkpoint


def _processes() -> tuple[str, int | None]:
    """Who starts the ranks, if not Lightning, and how many."""
    if TorchElasticEnvironment.detect():
        return "torchrun", int(os.environ["WORLD_SIZE"])
    if SLURMEnvironment.detect():
        return "srun", int(os.environ["SLURM_NTASKS"])
    return "Lightning", None


def _listed(plugins: Any) -> list[Any]:
    return (
        list(plugins) if isinstance(plugins, Sequence) and not isinstance(plugins, str) else [plugins] * bool(plugins)
    )


def _several(devices: int | str | Sequence[int], nodes: int) -> bool:
    if nodes > 1:
        return True
    if devices in ("auto", -1, "-1"):
        return torch.cuda.device_count() > 1
    if isinstance(devices, str):
        return len(devices.split(",")) > 1 or (devices.isdigit() and int(devices) > 1)
    return devices > 1 if isinstance(devices, int) else len(devices) > 1
