"""What is fitted before training, how a step is made fast, and Lightning's fit with sound ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import track
from torch import Tensor

from compseg.batches import CohortData
from compseg.batches.loader import end_workers
from compseg.errors import CompsegError, Stopped
from compseg.faults import StopSignals
from compseg.faults.signals import start_compilers_with_signals_blocked
from compseg.faults.watchdog import HOW_TO_CONTINUE, PERIOD, Watchdog, is_lost_contact
from compseg.log import console, log
from compseg.memory import keep_freed
from compseg.preprocessing import fit_corrections, fit_standardisation
from compseg.private import start_other_ranks
from compseg.training.module import CompSegNet
from compseg.training.trainer import Trainer

# Area under the ROC of held-out labels: of spectra .77 and more, of grey pictures up to .66 (docs/research/lab-log.md).
FOUND = 0.7
SILENT = 4.0  # seconds without a word of what is being fitted, about
Item = TypeVar("Item")
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def fit_preprocessing(module: CompSegNet, data: CohortData) -> None:
    """Fit corrections and standardisation to the training samples."""
    module.preprocess.to(data.fitting_device)  # earlier than Lightning, which moves all of the module
    fit_corrections(module.preprocess, lambda: shown(data.training_tissue(), "corrections", data))
    fit_standardisation(module.preprocess, shown(data.training_tissue(), "standardisation", data))


def fit_pseudo_labels(module: CompSegNet, data: CohortData) -> None:
    """Let the pseudo-labeller, if there is one, look at the preprocessed training samples."""
    if (labeller := module.pseudo_labels) is None:
        return
    labeller.to(data.fitting_device)
    samples = Repeated(lambda: shown(training_samples(module.preprocess, data), "pseudo-labels", data))
    what = f"pseudo-labels, {labeller.round_name}"
    rounds = Repeated(lambda: shown(range(labeller.rounds), what, data, labeller.rounds))
    labeller.fit(samples, len(data.train), module.seed, rounds)
    for line in labeller.found():
        log(line)


class Repeated(Iterable[Item]):
    """What an iterator gives, from the start each time that it is gone through."""

    def __init__(self, start: Callable[[], Iterable[Item]]) -> None:
        self.start = start

    def __iter__(self) -> Iterator[Item]:
        return iter(self.start())


def fit_segmenter(module: CompSegNet, data: CohortData) -> None:
    """Let a segmenter that can be fitted, or starts from what it finds, look too; it is one with a method `fit`."""
    if callable(fit := getattr(module.segmenter, "fit", None)):
        fit(SamplesOnHost(module, data), len(data.train), module.seed)
        log(f"model: fitted, {module.segmenter}")


class SamplesOnHost:
    """What a segmenter reads of the training samples, on the host, where it is until Lightning moves it.

    It can be gone through again, and reads the samples each time.
    """

    def __init__(self, module: CompSegNet, data: CohortData) -> None:
        self.module, self.data = module, data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        for image, tissue, label in training_samples(self.module.network_input, self.data):
            yield image.cpu(), tissue.cpu(), label


def found_nothing(module: CompSegNet) -> bool:
    """Whether what the pseudo-labeller marks tells held-out labels hardly better than a coin."""
    return module.pseudo_labels is not None and module.pseudo_labels.held_out_auc < FOUND


def training_samples(
    seen: Callable[[Tensor, Tensor], Tensor], data: CohortData
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """What is seen `(C, H, W)` of each training sample, its tissue `(1, H, W)` and its label, one at a time."""
    for (image, tissue), info in zip(data.training_tissue(), data.train.infos, strict=True):
        yield seen(image[None], tissue[None])[0], tissue, info.label


def shown(items: Iterable[Item], what: str, data: CohortData, total: int | None = None) -> Iterable[Item]:
    """The training samples, or `total` other items, with progress and the time left."""
    where, total = console(), len(data.train) if total is None else total
    if data.trainer is None or not data.trainer.is_global_zero:
        return items
    if where.is_terminal:
        return track(items, f"fitting {what}", total, console=where, transient=True)
    return _in_lines(items, f"fitting {what}", total)


def _in_lines(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """A line every few seconds: in a log a bar would be noise."""
    begun = said = time.monotonic()
    for done, item in enumerate(items):
        if done and (now := time.monotonic()) - said > SILENT:
            log(f"{what}: {done} of {total}, {(now - begun) / done * (total - done):.0f} s left")
            said = now
        yield item


def speed_up(module: CompSegNet, trainer: Trainer) -> None:
    """Give the module the trainer's memory format, compile what each step runs, and keep the memory that it frees.

    Compiled in place, so that names in the checkpoint stay as they are. After all that is fitted before training: that
    runs where the weights are before Lightning moves them.

    Args:
        module: About to be trained.
        trainer: Its settings.
    """
    if trainer.strategy.root_device.type == "cpu":
        # A step of 4 images of 512 x 512 x 64 takes .81 s instead of 1.74 s (docs/research/performance.md).
        keep_freed()
    module.memory_format = MEMORY_FORMATS[trainer.memory_format]
    module.segmenter.to(memory_format=module.memory_format)  # type: ignore[call-overload]
    if trainer.compile is not None:
        start_compilers_with_signals_blocked()
        # The corrections are many small steps over all of the input; compiled, they are one.
        module.preprocess.compile()
        module.segmenter.compile(mode=trainer.compile)


def fit(trainer: Trainer, module: CompSegNet, data: CohortData, checkpoint: Path | None, signals: StopSignals) -> None:
    """Train. On return all ranks are done; the process group stays for the next fit of this process.

    torchrun's store outlives a process group, and a second one would find the addresses of the first in it.

    Args:
        trainer: Of this rank.
        module: To train.
        data: Its batches.
        checkpoint: To resume from; None: from the start.
        signals: Those that ask the run to stop.

    Raises:
        Stopped: After a signal, on rank zero; other ranks leave by `SystemExit` with the same exit code.
        CompsegError: If another rank is gone.
    """
    (watchdog,) = (callback for callback in trainer.callbacks if isinstance(callback, Watchdog))
    with watchdog, signals.remembered():
        try:
            start_other_ranks(trainer)
            # `weights_only`: a checkpoint may be from elsewhere, and nothing in it should be run.
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            trainer.strategy.barrier("fitted")
        except Stopped as stopped:
            if trainer.global_rank:
                raise SystemExit(stopped.exit_code) from None
            raise
        except RuntimeError as error:
            if trainer.world_size == 1 or not is_lost_contact(error):
                raise
            time.sleep(3 * PERIOD)  # the watchdog has the first word, for it may know which rank and why
            raise CompsegError(f"lost contact with another rank; its own output says why; {HOW_TO_CONTINUE}") from error
        finally:
            # Workers do not hear the signals, and the garbage collector cannot end them in order (see `Loader`).
            end_workers()
    # A signal after the last step was only noted, and no step has asked for it since.
    if signals.received is not None:
        raise signals.stopped(" when training had ended, before its evaluation")
