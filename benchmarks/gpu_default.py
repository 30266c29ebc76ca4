"""The default at full size on one GPU: labeller, epochs, evaluation and report, and prediction of a large mosaic.

`python benchmarks/run.py gpu_default` on a machine with a GPU. The same code runs small on a processor, as a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from common import Row, seconds, synchronised
from gpu_paper import matmul_peak
from hydra.utils import instantiate
from judging import WithTest
from prediction import Mosaic
from step import few_spots_source
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compseg.cohort import prepare
from compseg.config import compose
from compseg.inference import load_segmenter
from compseg.inference.images import new_images
from compseg.inference.prediction import predict
from compseg.log import quiet_libraries
from compseg.report.judge import judge
from compseg.training import run as training

LABELLER_BAR, REPORT_BAR = 3.0, 6.0  # seconds


@dataclass(frozen=True)
class Size:
    """What is trained, judged and mapped."""

    pixels: int = 256
    channels: int = 450
    count: int = 24
    epochs: int = 15
    mosaic: int = 4096
    matmul: int = 8192


def measure(folder: Path, size: Size = Size()) -> list[Row]:
    """Rows of the table, each printed at once: time on a GPU may run out."""
    quiet_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak, run = matmul_peak(device, size.matmul), folder / "run_gpu_default"
    phantom = instantiate(few_spots_source(size.pixels, size.count, size.channels))
    cohort = prepare(WithTest(phantom), folder / "gpu_default.zarr", progress=False)
    labeller, fit = trained(cohort.path, run, size.epochs, device)
    network = load_segmenter(run).model
    each, what = flops(network, size.pixels, size.channels), f"{size.pixels} x {size.pixels} x {size.channels}"
    steps = 3 * size.epochs * len(cohort.split("train")) * each  # a backward pass has twice the products
    rows = [
        _shown(Row(f"pseudo-labeller, {size.count} spots of {what}", labeller, "the bar", LABELLER_BAR)),
        _shown(Row(f"{size.epochs} epochs, validation and pictures", fit, "their products at the peak", steps / peak)),
        _shown(Row(f"evaluation and report of {size.count} spots", seconds(lambda: judge(run)), "the bar", REPORT_BAR)),
    ]
    return [*rows, _shown(mapped(folder, run, size, device, peak))]


def _shown(row: Row) -> Row:
    print(row.markdown(), flush=True)
    return row


def trained(cohort: Path, run: Path, epochs: int, device: torch.device) -> tuple[float, float]:
    """Train as `compseg.train` does; seconds of the pseudo-labeller and of the epochs."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    overrides = [f"trainer.max_epochs={epochs}", f"trainer.accelerator={accelerator}", "trainer.devices=1"]
    cfg = compose("train", ["data=cohort", f"data.path={cohort}", f"hydra.run.dir={run}", "data.workers=0", *overrides])
    run.mkdir()
    times: dict[str, float] = {}

    def timed(name: str) -> Callable[..., None]:
        call = getattr(training, name)

        def measured(*given):
            def whole():
                call(*given)
                synchronised(device)

            times[name] = seconds(whole)

        return measured

    names = ("fit_pseudo_labels", "fit")
    with patch.multiple(training, **{name: timed(name) for name in names}):
        training.train(cfg, run)
    return times[names[0]], times[names[1]]


def flops(network: nn.Module, pixels: int, channels: int) -> int:
    """Floating-point operations of the network's map of a square image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, pixels, pixels))
    return int(counter.get_total_flops())


def mapped(folder: Path, run: Path, size: Size, device: torch.device, peak: float) -> Row:
    """A mosaic's maps on disk, against what binds: its copy to the device, or the network's products."""
    cohort = prepare(Mosaic(size.mosaic, size.channels), folder / "gpu_mosaic.zarr", progress=False)
    segmenter, images = load_segmenter(run, device), new_images(cohort.path)
    taken = seconds(lambda: predict(segmenter, images, folder / "gpu_maps"))
    pixels = size.mosaic**2
    copy = pixels * size.channels * 2 / copy_rate(device)
    products = flops(load_segmenter(run).model, size.pixels, size.channels) * pixels / size.pixels**2 / peak
    what = f"prediction of {size.mosaic} x {size.mosaic} x {size.channels}: {pixels / taken / 1e6:.2f} Mpixel a second"
    return Row(what, taken, "its copy to the device" if copy > products else "its products", max(copy, products))


def copy_rate(device: torch.device, size: int = 2**28) -> float:
    """Bytes a second from host memory to the device."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty(size, dtype=torch.uint8, device=device)

    def copy():
        there.copy_(host)
        synchronised(device)

    copy()
    return size / min(seconds(copy) for _ in range(3))
