"""Prediction at scale: a mosaic in tiles, its speed against the bare network on the same tiles, and its memory.

Each network maps the mosaic in a process of its own, which tells how long that took and what memory it needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from common import Row, peak_memory, seconds
from hydra.utils import instantiate

from compseg.cohort import prepare
from compseg.comparative import FisherPseudoLabels
from compseg.config import compose
from compseg.evaluation.thresholds import fixed
from compseg.inference import Segmenter
from compseg.inference.images import new_images
from compseg.inference.prediction import predict
from compseg.inference.tiling import Tile
from compseg.models import UNet
from compseg.preprocessing import Preprocess
from compseg.samples import Channels, SampleArrays, SampleInfo
from compseg.training.resolve import corrections_for

SIZE, CHANNELS = 2048, 450
NETWORKS = {
    "the paper's U-Net, standardisation alone": {},
    "U-Net of width 16, detrend and SNV": {"corrected": True, "width": 16, "activation": "relu", "norm": "batch"},
    "the default": {
        "corrected": True,
        "contrasted": True,
        "width": 16,
        "depth": 1,
        "activation": "leaky_relu",
        "norm": "batch",
    },
}


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


def segmenter_of(channels: Channels, corrected: bool = False, contrasted: bool = False, **network) -> Segmenter:
    """A U-Net, behind no corrections as in the paper or those that such channels get by default, and their contrast."""
    torch.manual_seed(0)
    corrections = instantiate(corrections_for(channels)[0]) if corrected else []
    preprocess, labeller = Preprocess(channels.count, corrections), None
    if contrasted:
        labeller = FisherPseudoLabels(channels.count)
        labeller.filter.normal_(std=channels.count**-0.5)
        labeller.level.fill_(0.3)
    return Segmenter(
        UNet(channels.count, **network), preprocess, {}, {}, channels, "all", "float16", fixed(0.5), {}, labeller
    )


def named(name: str, channels: Channels) -> Segmenter:
    """One of those that are measured."""
    return segmenter_of(channels, **NETWORKS[name])


def measure(folder: Path, size: int = SIZE, channels: int = CHANNELS) -> list[Row]:
    """Rows of the table."""
    mosaic = prepare(Mosaic(size, channels), folder / f"mosaic_{size}.zarr", progress=False)
    os.sync()  # else the system writes it to disk while it is read
    return [row for name in NETWORKS for row in _of_network(name, Path(mosaic.path), folder, size)]


def _of_network(name: str, cohort: Path, folder: Path, size: int) -> list[Row]:
    channels = new_images(cohort)[0].cohort.channels
    segmenter = named(name, channels)
    before = _alone(segmenter, cohort, size)
    taken, peak = _apart(name, cohort, folder)
    after = _alone(segmenter, cohort, size)  # before and after, so that a machine that grows busier hurts both alike
    decoding, preprocessing, network, cores = np.mean([before, after], axis=0)
    tiles = len(segmenter.tiles((size, size)))
    return [
        Row(f"{name}: {size} x {size} x {channels.count}, {tiles} tiles", taken, "the network alone", network),
        Row(f"{name}: the same", taken, "the network alone, of cores", cores),
        Row(f"{name}: the same", taken, "preprocessing and network, of cores", preprocessing + cores),
        Row(f"{name}: the same", taken, "decoding and network", decoding + network),
        Row(f"{name}: memory above the model, GB", peak / 1e9, "the bar, GB", 2.0),
    ]


def _alone(segmenter: Segmenter, cohort: Path, size: int) -> tuple[float, ...]:
    """Seconds for decoding what is read, and what `_bare` says."""
    opened = new_images(cohort)[0].open()
    tiles = segmenter.tiles((size, size))
    read = list(tiles)
    if segmenter.pseudo_labels is not None:
        segmenter.background(tiles, lambda some: read.extend(some) or [])  # of nothing, but these would be read
    decoding = seconds(lambda: [opened.image(tile.seen).shape for tile in read])
    return decoding, *_bare(segmenter, size)


def _bare(segmenter: Segmenter, size: int) -> tuple[float, float, float]:
    """Seconds for preprocessing, and for the network's maps of the same tiles and of their cores alone.

    The tiles lie in memory and lead nowhere. Those of one size whose cores lie alike take the same time: each kind is
    timed once.
    """
    kinds = Counter(_kind(tile) for tile in segmenter.tiles((size, size)))
    largest = (max(kind[0] for kind in kinds), max(kind[1] for kind in kinds))
    raw = np.random.default_rng(0).random((*largest, segmenter.channels.count), dtype=np.float32).astype("f2")
    tissue = np.ones(largest, bool)
    segmenter.network_input(raw, tissue)  # whose memory is used again, as in prediction
    total = np.zeros(3)
    for (height, width, *core), times in kinds.items():
        image, mask, inner = raw[:height, :width], tissue[:height, :width], (slice(*core[:2]), slice(*core[2:]))
        preprocessing = seconds(lambda image=image, mask=mask: segmenter.network_input(image, mask))
        given = segmenter.network_input(image, mask)
        network = seconds(lambda given=given: segmenter.logits_of(given))
        cores = seconds(lambda given=given, inner=inner: segmenter.logits_of(given, inner))
        total += times * np.array([preprocessing, network, cores])
        del given
    preprocessing, network, cores = total
    return preprocessing, network, cores


def _kind(tile: Tile) -> tuple[int, ...]:
    """Height and width of what a tile sees, and where its core lies in it."""
    rows, columns = tile.seen
    core = (edge for part in tile.inner for edge in (part.start, part.stop))
    return (rows.stop - rows.start, columns.stop - columns.start, *core)


def _apart(name: str, cohort: Path, folder: Path) -> tuple[float, int]:
    """Seconds and bytes of a process of its own."""
    command = [sys.executable, __file__, name, str(cohort), str(folder / "maps")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    taken, peak = json.loads(done.stdout.splitlines()[-1])
    return taken, peak


def mapped(name: str, cohort: Path, out: Path) -> tuple[float, int]:
    """Seconds for the map, and bytes at the peak above what was resident before, libraries and model loaded."""
    images = new_images(cohort)
    channels = images[0].cohort.channels
    segmenter = named(name, channels)
    small = out.with_suffix(".npy")
    np.save(small, np.random.default_rng(0).random((64, 64, channels.count), dtype=np.float32))
    predict(segmenter, new_images(small), out, overwrite=True)  # whatever is imported late is now there
    taken: list[float] = []
    peak = peak_memory(lambda: taken.append(seconds(lambda: predict(segmenter, images, out, overwrite=True))))
    return taken[0], peak


if __name__ == "__main__":
    print(json.dumps(mapped(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
