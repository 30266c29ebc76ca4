"""Lightning's Trainer with what every CompSegNet run needs: resuming, whole checkpoints, our own sampling."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import Strategy

from compseg.errors import CompsegError
from compseg.private import leave_signals_alone
from compseg.run_folder import CHECKPOINTS, LAST
from compseg.training.checkpoints import WholeCheckpoints
from compseg.training.strategies import DDP, FSDP


class Trainer(pl.Trainer):
    """Takes every argument of `pytorch_lightning.Trainer`, and these.

    Args:
        resume: None: from the start. `auto`: from the run folder's `checkpoints/last.ckpt` if there is one. Else
            a checkpoint, or a run folder that holds one.
        compile: A mode of `torch.compile` for the network; None: it is not compiled.
        memory_format: Of the network's input and weights: `channels_last` or `contiguous`.
        strategy: As Lightning's; `auto` and `ddp` mean our own DDP on several devices, `fsdp` our own FSDP.
        **options: All others; a callback with `runs_last = True` is called after all others.

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
        elif (
            strategy in ("auto", "ddp")
            and number_of_devices(options.get("devices", "auto"), options.get("num_nodes", 1)) > 1
        ):
            strategy = DDP()
        options["plugins"] = [*_listed(options.get("plugins")), WholeCheckpoints()]
        # Our sampler shares samples out among ranks by itself; sanity steps would mix into the epoch's sums.
        super().__init__(strategy=strategy, use_distributed_sampler=False, num_sanity_val_steps=0, **options)
        # Sorting is stable, so that all others keep their order.
        self.callbacks: list[Callback] = sorted(
            self.callbacks, key=lambda callback: getattr(callback, "runs_last", False)
        )
        leave_signals_alone(self)  # `StopBetweenSteps` asks for them between steps
        self._refuse_another_number()
        self.resume, self.compile, self.memory_format = resume, compile, memory_format

    @staticmethod
    def unread(node: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Arguments that do nothing beside the others."""
        idle = ("training neither tests nor predicts", "give trainer.limit_val_batches")
        found = dict.fromkeys(("limit_test_batches", "limit_predict_batches"), idle)
        if node.get("gradient_clip_val") is None:
            found["gradient_clip_algorithm"] = ("no gradient is clipped", "give trainer.gradient_clip_val")
        return found

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


def number_of_devices(devices: int | str | Sequence[int] | None, nodes: int = 1) -> int:
    """How many devices train, of all machines together, for a setting of `trainer.devices` and `trainer.num_nodes`."""
    if devices in (None, "auto", -1, "-1"):
        here = max(torch.cuda.device_count(), 1)
    elif isinstance(devices, str):
        # A list such as 0,1 names devices; a number counts them.
        here = int(devices) if devices.isdigit() else len(devices.split(","))
    else:
        here = devices if isinstance(devices, int) else len(devices)
    return here * nodes
