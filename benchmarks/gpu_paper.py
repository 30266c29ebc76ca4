"""The paper's training at full size on one GPU: seconds an epoch, memory, share of the matmul peak, idle time.

`python benchmarks/run.py gpu_paper` on a machine with a GPU. The same code runs small on a processor, as a test.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from common import Rolled, Row, synchronised
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from compseg.batches.datamodule import CohortData
from compseg.cohort import prepare
from compseg.config import compose
from compseg.faults import StopSignals
from compseg.log import quiet_libraries
from compseg.monitor.dashboards import Dashboards
from compseg.preprocessing import fit_standardisation
from compseg.training.build import build_module, build_trainer
from compseg.training.fit import speed_up
from compseg.training.module import CompSegNet
from compseg.training.resolve import resolve

PAPER_EPOCHS = 400
MODES = (None, "default", "reduce-overhead")  # as it is; compiled; compiled, with CUDA graphs


@dataclass(frozen=True)
class Size:
    """What is trained; the defaults are the paper's."""

    pixels: int = 256
    channels: int = 450
    width: int = 64
    warm_up: int = 3
    epochs: int = 10
    matmul: int = 8192


@dataclass(frozen=True)
class Measured:
    """One mode of compilation.

    Attributes:
        mode: Of `torch.compile`, or None.
        warm_up: Seconds until the steady state: compiling, and filling the cache.
        epoch: Seconds an epoch after that, validation included.
        stepping: Seconds of its steps alone.
        steps: Of an epoch.
        flops: Of a step.
        memory: Peak bytes on the device.
        idle: Share of the steps' time in which the host waited for the device to finish: what it has to spare.
    """

    mode: str | None
    warm_up: float
    epoch: float
    stepping: float
    steps: int
    flops: int
    memory: int
    idle: float


class Clock(Callback):
    """Seconds of each epoch, of its steps, and of the wait for the device after the last of them.

    An epoch lasts until the next one begins: what callbacks and loggers do between them counts.
    """

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.stepping: list[float] = []
        self.waits: list[float] = []

    @property
    def epochs(self) -> list[float]:
        """Seconds of each whole epoch."""
        return [end - begin for begin, end in pairwise(self.begun)]

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Begin."""
        del trainer
        synchronised(pl_module.device)
        self.begun.append(time.perf_counter())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """The steps end when the device has ended them."""
        del outputs, batch, batch_idx
        if trainer.is_last_batch:
            issued = time.perf_counter()
            synchronised(pl_module.device)
            done = time.perf_counter()
            self.waits.append(done - issued)
            self.stepping.append(done - self.begun[-1])

    def on_train_end(self, trainer, pl_module) -> None:
        """The last epoch ends here."""
        self.on_train_epoch_start(trainer, pl_module)


def measure(folder: Path, size: Size = Size(), modes=MODES) -> list[Row]:
    """Rows of the table: steps of an epoch in each mode, and what they would take at the measured peak of matmul."""
    quiet_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matmul_peak(device, size.matmul)
    rows = []
    for mode in modes if device.type == "cuda" else modes[:1]:
        found = trained(folder, size, mode, device)
        at_peak = found.flops * found.steps / peak
        what = (
            f"{found.steps} steps of an epoch, compile={mode}: {at_peak / found.stepping:.1%} of the peak, host idle "
            f"{found.idle:.0%}, {found.memory / 1e9:.1f} GB; whole epochs of {found.epoch:.3f} s: {PAPER_EPOCHS} in "
            f"{PAPER_EPOCHS * found.epoch / 60:.2f} min after {found.warm_up:.0f} s of warm-up"
        )
        rows.append(Row(what, found.stepping, f"their products at the peak of {peak / 1e12:.1f} TFLOP/s", at_peak))
        print(rows[-1].markdown(), flush=True)  # each takes a minute: not to be lost where time on a GPU runs out
    return rows


def matmul_peak(device: torch.device, size: int) -> float:
    """Floating-point operations a second of a large product in bf16, the best of some."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        a @ b
        synchronised(device)
        begun = time.perf_counter()
        for _ in range(10):
            a @ b
        synchronised(device)
        best = min(best, (time.perf_counter() - begun) / 10)
    return 2 * size**3 / best


def trained(folder: Path, size: Size, mode: str | None, device: torch.device) -> Measured:
    """Train as `compseg.train experiment=paper` does, with the settings of `trainer=gpu` where there is a GPU."""
    cuda = device.type == "cuda"
    cfg = compose(
        "train",
        [
            "experiment=paper",
            *(["trainer=gpu"] if cuda else ["trainer.accelerator=cpu"]),
            f"trainer.compile={'null' if mode is None else mode}",
            f"trainer.max_epochs={size.warm_up + size.epochs}",
            "trainer.enable_progress_bar=false",
            f"model.width={size.width}",
            f"data.source.size={size.pixels}",
            f"data.source.channels={size.channels}",
            f"data.path={folder / 'paper.zarr'}",
            f"data.cache={'device' if cuda else 'ram'}",
            "data.workers=0",
            "hydra.run.dir=unused",
        ],
    )
    prepare(Rolled(instantiate(cfg.data.source)), Path(cfg.data.path), progress=False)
    cfg.callbacks, cfg.data.source = {}, None
    data: CohortData = instantiate(cfg.data)
    cfg = resolve(cfg, data.cohort).cfg
    torch.manual_seed(0)
    module = build_module(cfg)
    trainer, clock = build_trainer(cfg, folder / "run", Dashboards(), StopSignals(folder)), Clock()
    trainer.callbacks.append(clock)
    data.trainer = trainer
    data.setup()
    module.preprocess.to(data.fitting_device)
    fit_standardisation(module.preprocess, [next(iter(data.training_tissue()))])  # its values are as good as any
    flops = flops_of(module, next(iter(data.train_dataloader())))
    speed_up(module, trainer)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, datamodule=data)
    steady, stepping = clock.epochs[size.warm_up :], clock.stepping[size.warm_up :]
    return Measured(
        mode,
        warm_up=sum(clock.epochs[: size.warm_up]),
        epoch=sum(steady) / len(steady),
        stepping=sum(stepping) / len(stepping),
        steps=int(trainer.num_training_batches),
        flops=flops,
        memory=torch.cuda.max_memory_allocated() if cuda else 0,
        idle=sum(clock.waits[size.warm_up :]) / sum(stepping),
    )


def flops_of(module: CompSegNet, batch: dict) -> int:
    """Floating-point operations of a step's convolutions, forward and backward, counted on shapes alone."""
    image = batch["image"]
    segmenter = module.segmenter
    shape = image.shape
    with torch.device("meta"):
        meta = torch.empty(shape)
    held = {name: tensor for name, tensor in segmenter.state_dict().items()}
    segmenter.to("meta")
    with FlopCounterMode(display=False) as counter:
        segmenter(meta).sum().backward()
    segmenter.to_empty(device="cpu")
    segmenter.load_state_dict(held)
    return counter.get_total_flops()
