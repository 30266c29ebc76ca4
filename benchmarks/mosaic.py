"""A mosaic from file to maps to other programs: memory, and that an interrupted prediction ends as an unbroken one.

python benchmarks/mosaic.py [SIZE [CHANNELS [FOLDER]]]
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hydra.utils import instantiate

from compseg.config import compose

LIMIT = 3e9  # bytes
TRAINED = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.devices=1", "evaluation.report=false")
FORMATS = ("png", "ome_tiff", "ome_zarr", "geojson", "csv")


def make(path: Path, size: int, channels: int) -> None:
    """A mosaic of one spot, repeated and lit differently, written a row of spots at a time."""
    source = instantiate(compose("train").data.source, size=min(size, 64), channels=channels)
    spot = source.read(source.infos()[0]).image.astype(np.float16)
    edge, generator = len(spot), np.random.default_rng(0)
    mosaic = np.lib.format.open_memmap(path, "w+", np.float16, (size, size, channels))
    for top in range(0, size, edge):
        light = generator.uniform(0.8, 1.2, -(-size // edge))
        row = np.concatenate([spot * np.float16(each) for each in light], axis=1)
        mosaic[top : top + edge] = row[: size - top, :size]
    mosaic.flush()


def run(verb: str, *words: str, stop_after: float | None = None) -> tuple[int, float, int]:
    """Exit code, seconds and peak bytes of a verb, which is interrupted after some seconds if told to."""
    command = [sys.executable, "-m", f"compseg.{verb}", *words, "hydra.output_subdir=null"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if stop_after is not None:
        time.sleep(stop_after)
        os.kill(process.pid, signal.SIGINT)  # without a look at it, which would take its exit code away
    _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - start, 1024 * usage.ru_maxrss


def digest(folder: Path) -> dict[str, str]:
    """Of each file of a prediction."""
    files = sorted([*folder.glob("maps/*"), folder / "areas.csv"])
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main(size: int = 4096, channels: int = 64, folder: Path | None = None) -> None:
    """Print a table; fail where memory or results are not as they should be."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        make(root / "mosaic.npy", size, channels)
        run(
            "train",
            f"data.source.channels={channels}",
            "data.source.size=32",
            f"data.path={root}/c.zarr",
            *TRAINED,
            f"hydra.run.dir={root}/run",
        )
        predict = ("predict", f"run={root}/run", f"input={root}/mosaic.npy", "device=cpu")
        print(f"{size} x {size} x {channels}, {(root / 'mosaic.npy').stat().st_size / 1e9:.2f} GB\n")
        print("| step | seconds | peak memory, GB |\n|---|---|---|")
        peaks = []

        def step(*words: str) -> float:
            code, taken, peak = run(*words)
            print(f"| {words[0]} {words[-1].partition('/')[0]} | {taken:.1f} | {peak / 1e9:.2f} |", flush=True)
            peaks.append(peak)
            assert code == 0, words
            return taken

        taken = step(*predict, f"out={root}/whole")
        code, *_ = run(*predict, f"out={root}/broken", stop_after=0.6 * taken)
        print(f"| interrupted after {0.6 * taken:.1f} s: exit code {code} | | |")
        step(*predict, f"out={root}/broken")
        assert digest(root / "whole") == digest(root / "broken"), "an interrupted prediction ends in other maps"
        for form in FORMATS:
            step("export", f"maps={root}/whole", f"out={root}/{form}", f"format={form}")
        assert max(peaks) < LIMIT, f"{max(peaks) / 1e9:.2f} GB"


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*map(int, given[:2]), *map(Path, given[2:]))
