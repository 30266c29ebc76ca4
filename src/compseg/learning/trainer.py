"""Lightning's Trainer with what every CompSegNet run needs.

Resuming, best and last checkpoints, and DDP that leaves sampling to us.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, Strategy

from compseg.errors import CompsegError

CHECKPOINTS = "checkpoints"


class Trainer(pl.Trainer):
    """Takes every argument of `pytorch_lightning.Trainer`, and `resume`.

    Args:
        resume: None: start anew. `auto`: go on from the run folder's `checkpoints/last.ckpt` if there is one. Otherwise
            a checkpoint, or a run folder that holds one.
    """

    def __init__(self, *, resume: str | None = None, strategy: str | Strategy = "auto", **options: Any) -> None:
        if strategy in ("auto", "ddp") and _several(options.get("devices", "auto")):
            # Buffers (the standardisation) never change while training; broadcasting them would make ranks wait for
            # each other in validation, where they may have different numbers of batches.
            strategy = DDPStrategy(broadcast_buffers=False)
        # Our sampler shares samples out among ranks by itself; sanity steps would mix into the epoch's sums.
        super().__init__(strategy=strategy, use_distributed_sampler=False, num_sanity_val_steps=0, **options)
        self.resume = resume

    def checkpoint_to_resume(self) -> Path | None:
        """The checkpoint that `resume` names.

        Raises:
            CompsegError: If a checkpoint is named that does not exist.
        """
        last = Path(self.default_root_dir) / CHECKPOINTS / "last.ckpt"
        if self.resume is None:
            return None
        if self.resume == "auto":
            return last if last.is_file() else None
        named = Path(self.resume)
        path = named / CHECKPOINTS / "last.ckpt" if named.is_dir() else named
        if not path.is_file():
            raise CompsegError(
                f"trainer.resume={self.resume}: no checkpoint at {path}; "
                "give a checkpoint, a run folder that has one, or auto"
            )
        return path


def _trainer_signature() -> inspect.Signature:
    theirs = [p for p in inspect.signature(pl.Trainer).parameters.values() if p.name != "use_distributed_sampler"]
    resume = inspect.Parameter("resume", inspect.Parameter.KEYWORD_ONLY, default=None)
    return inspect.Signature([*theirs, resume])


# So that a misspelt key of the trainer is found before anything starts: `**options` would take any name.
Trainer.__signature__ = _trainer_signature()  # type: ignore[attr-defined]


class BestAndLast(ModelCheckpoint):
    """`checkpoints/best.ckpt` by a monitored figure and `checkpoints/last.ckpt`, after each epoch.

    Args:
        monitor: A logged figure of the validation samples.
        mode: `min` or `max`.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min") -> None:
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


def _several(devices: int | str | Sequence[int]) -> bool:
    if devices in ("auto", -1, "-1"):
        return torch.cuda.device_count() > 1
    if isinstance(devices, str):
        return len(devices.split(",")) > 1 or (devices.isdigit() and int(devices) > 1)
    return devices > 1 if isinstance(devices, int) else len(devices) > 1
