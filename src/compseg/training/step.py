"""How a step is computed: precision, memory format, compilation, a fused optimizer, memory that is kept.

Chosen by rule and not by a stopwatch, so that the same run chooses alike each time. Measured in docs/performance.md.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, open_dict

from compseg.cohort import Cohort
from compseg.errors import CompsegError
from compseg.faults.signals import start_compilers_with_signals_blocked
from compseg.log import log
from compseg.memory import keep_freed
from compseg.training.module import CompSegNet
from compseg.training.trainer import Trainer

LONG = 4000  # steps; of the paper's, each saved 5 ms, and compiling took 10 to 30 s (docs/performance.md)
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def settle_step(cfg: DictConfig, cohort: Cohort) -> None:
    """Put a value for every `auto` of the trainer, and say in one line which and why.

    Args:
        cfg: `conf/train.yaml`, composed; `trainer.precision`, `compile` and `memory_format` may be `auto`. The
            optimizer gets `fused: true` where it can and nothing else is given.
        cohort: Whose images it is for.

    Raises:
        CompsegError: If there is no such mode of compilation or memory format.
    """
    gpu = trains_on_cuda(str(cfg.trainer.accelerator))
    rules = {
        "precision": _precision(gpu),
        "compile": _compile(gpu, _alike(cfg, cohort), _steps(cfg, cohort)),
        "memory_format": ("channels_last", "as samples are stored"),
    }
    chosen = {key: rule for key, rule in rules.items() if cfg.trainer[key] == "auto"}
    for key, (value, _) in chosen.items():
        cfg.trainer[key] = value
    if chosen:
        log("auto: " + ", ".join(f"trainer.{key}={value or 'null'} ({why})" for key, (value, why) in chosen.items()))
    if gpu and _takes_fused(cfg.optimizer):
        with open_dict(cfg.optimizer):
            cfg.optimizer.fused = True
        log("auto: optimizer.fused=true (one kernel for all weights)")
    if not gpu:
        log("auto: a step uses the memory of the one before (on a processor that saves up to half its time)")
    _check("compile", cfg.trainer.compile, (None, *MODES))
    _check("memory_format", cfg.trainer.memory_format, tuple(FORMATS))


def speed_up(module: CompSegNet, trainer: Trainer) -> None:
    """Give the module the trainer's memory format, compile what each step runs, and keep what it frees.

    Compiled in place, so that names in the checkpoint stay as they are. After all that is fitted before training: that
    runs where the weights are before Lightning moves them.

    Args:
        module: About to be trained.
        trainer: Its settings.
    """
    if trainer.strategy.root_device.type == "cpu":
        keep_freed()
    module.memory_format = FORMATS[trainer.memory_format]
    module.segmenter.to(memory_format=module.memory_format)  # type: ignore[call-overload]
    if trainer.compile is not None:
        start_compilers_with_signals_blocked()
        # The corrections are many small steps over all of the input; compiled, they are one.
        module.preprocess.compile()
        module.segmenter.compile(mode=trainer.compile)


def trains_on_cuda(accelerator: str) -> bool:
    """Whether Lightning would take a CUDA device for this setting of `trainer.accelerator`."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _precision(gpu: bool) -> tuple[str, str]:
    if gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", "this GPU multiplies bf16 many times faster; head and objective stay in float32"
    return "32-true", "a GPU without bf16" if gpu else "no GPU"


def _compile(gpu: bool, alike: bool, steps: float) -> tuple[str | None, str]:
    if not gpu:
        return None, "it pays on a GPU"
    if not alike:
        return None, "images of several sizes"
    if steps < LONG:
        return None, f"{steps:.0f} steps, and it takes about as long as {LONG} save"
    return "default", f"{steps:.0f} steps, all images of one size"


def _steps(cfg: DictConfig, cohort: Cohort) -> float:
    """About how many training takes on one device."""
    epochs, labels = cfg.trainer.max_epochs, [info.label for info in cohort.split("train")]
    if epochs is None or epochs < 0:
        return math.inf
    return float(epochs * 2 * min(labels.count(0), labels.count(1)) // cfg.data.batch_size)


def _alike(cfg: DictConfig, cohort: Cohort) -> bool:
    shapes = {cohort.shape(info.name)[:2] for info in cohort.split("train")}
    crop = cfg.data.crop
    return len(shapes) == 1 or (crop is not None and all(min(shape) >= crop for shape in shapes))


def _takes_fused(optimizer: DictConfig) -> bool:
    return "fused" not in optimizer and "fused" in inspect.signature(get_object(optimizer["_target_"])).parameters


def _check(key: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        names = ", ".join("null" if name is None else str(name) for name in known)
        raise CompsegError(f"trainer.{key}={value}: expected auto, {names}; choose one of these")
