"""Prediction at scale: a mosaic in tiles, its speed against the bare network on the same tiles, and its memory.

`python benchmarks/run.py prediction --full` takes one of 2048 x 2048 x 450; else it has a quarter of the pixels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from common import Row, side_by_side
from hydra.utils import instantiate

from compseg.cohort import prepare
from compseg.config import compose
from compseg.maps import Segmenter
from compseg.maps.images import new_images
from compseg.maps.prediction import predict
from compseg.maps.threshold import fixed
from compseg.models import UNet
from compseg.samples import Channels, SampleArrays, SampleInfo
from compseg.spectra import Preprocess, StandardNormalVariate

SIZE, CHANNELS, FULL = 1024, 450, 2048


class Mosaic:
    """A source of one large image: spots of the phantom side by side."""

    def __init__(self, size: int, channels: int) -> None:
        self.size = size
        source = compose("train", ["experiment=paper_small"]).data.source
        self.phantom = instantiate(source, size=min(size, 256), channels=channels)

    def infos(self):
        """The one."""
        return [SampleInfo("mosaic", 1, split="test")]

    def read(self, info):
        """The first spot, over and over."""
        del info
        spot = self.phantom.read(self.phantom.infos()[0]).image.astype("f2")
        times = self.size // len(spot)
        return SampleArrays(np.tile(spot, (times, times, 1)), np.ones((self.size, self.size), bool))

    def channels(self):
        """The phantom's."""
        return self.phantom.channels()

    def provenance(self):
        """Nothing that matters."""
        return {"source": "mosaic", "size": self.size}


def segmenter_of(channels: int, depth: int = 4) -> Segmenter:
    """A U-Net of width 16 whose map does not depend on how an image is cut."""
    torch.manual_seed(0)
    net = UNet(channels, width=16, depth=depth, activation="relu", norm="batch")
    preprocess = Preprocess(channels, [StandardNormalVariate()])
    return Segmenter(net, preprocess, {}, {}, Channels(channels), "all", "float16", fixed(0.5))


def measure(folder: Path, size: int = SIZE, channels: int = CHANNELS, rounds: int = 2) -> list[Row]:
    """Rows of the table."""
    segmenter = segmenter_of(channels)
    mosaic = prepare(Mosaic(size, channels), folder / f"mosaic_{size}.zarr", progress=False)
    images = new_images(Path(mosaic.path))
    tiles = segmenter.tiles((size, size))
    with_input, alone = _bare(segmenter, tiles, channels)
    what = f"prediction of {size} x {size} x {channels}, {len(tiles)} tiles, from cohort to files"
    ours = lambda: predict(segmenter, images, folder / "maps")  # noqa: E731
    rows = []
    for reference, call in (("preprocessing and network, tiles in memory", with_input), ("network alone", alone)):
        rows.append(Row(what, *_named(side_by_side(ours, call, rounds), reference)))
    return [*rows, _memory(mosaic.path, folder, size, channels)]


def _named(pair: tuple[float, float], reference: str) -> tuple[float, str, float]:
    return pair[0], reference, pair[1]


def _bare(segmenter: Segmenter, tiles, channels: int):
    """What a loop over the same tiles costs that reads and writes nothing: with preprocessing, and without."""
    sizes = [tuple(part.stop - part.start for part in tile.seen) for tile in tiles]
    largest = tuple(max(side) for side in zip(*sizes, strict=True))
    raw = torch.from_numpy(np.random.default_rng(0).random((*largest, channels), dtype=np.float32).astype("f2"))
    tissue = torch.ones(1, 1, *largest, dtype=torch.bool)
    ready = segmenter.network_input(raw.numpy(), tissue[0, 0].numpy())

    @torch.inference_mode()
    def with_input():
        for height, width in sizes:
            cube = raw[:height, :width].permute(2, 0, 1)[None]
            segmenter.model(segmenter.preprocess(cube, tissue[..., :height, :width]))

    @torch.inference_mode()
    def alone():
        for height, width in sizes:
            segmenter.model(ready[..., :height, :width])

    return with_input, alone


def _memory(cohort: str, folder: Path, size: int, channels: int) -> Row:
    """Peak memory of a process of its own above what it takes with the model loaded; the bar is 2 GB."""
    command = [sys.executable, __file__, str(cohort), str(folder / "memory"), str(channels)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    peak = json.loads(done.stdout.splitlines()[-1])
    return Row(f"memory above the model, {size} x {size} x {channels}: GB", peak / 1e9, "the bar, GB", 2.0)


def peak_above_model(cohort: str, out: str, channels: int) -> int:
    """Bytes: the peak while predicting less what was resident before, libraries and model loaded."""
    segmenter = segmenter_of(channels)
    small = np.random.default_rng(0).random((64, 64, channels), dtype=np.float32)
    np.save(Path(out).with_suffix(".npy"), small)
    predict(segmenter, new_images(Path(out).with_suffix(".npy")), Path(out))  # whatever is imported late is now there
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _status("VmRSS")
    predict(segmenter, new_images(Path(cohort)), Path(out))
    return _status("VmHWM") - before


def _status(key: str) -> int:
    # Not getrusage: its peak is that of the process before exec too, which is the parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(json.dumps(peak_above_model(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
