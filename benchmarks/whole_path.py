"""From .npy files and labels to maps and pictures, by what a user would write: `benchmarks/written` on the same files.

Each runs in processes of its own: wall time, processor time, peak memory, and the lines that somebody had to write.
compseg does more on the way (pseudo-labels, a fitted threshold, intervals, a report); the others do what their scripts
say. anomalib is for images of three channels and is passed over where it is not installed.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import Row
from hydra.utils import instantiate
from judging import WithTest
from step import few_spots_source

WRITTEN = Path(__file__).parent / "written"


@dataclass(frozen=True)
class Taken:
    """What a script took."""

    wall: float
    processor: float
    memory: float


def measure(folder: Path, size: int = 64, channels: int = 450, count: int = 56, epochs: int = 10) -> list[Row]:
    """Rows of the table: compseg against each of the others."""
    manifest = as_files(folder / "raw", size, channels, count)
    taken = {script: taken_by(script, manifest, folder / script.stem, epochs) for script in sorted(WRITTEN.iterdir())}
    if find_spec("anomalib") is None:
        print("anomalib: not installed here, so it is passed over")
    ours, peers = taken.pop(WRITTEN / "compseg.sh"), taken
    what = f"{count} spots of {size} x {size} x {channels}, {epochs} epochs, {lines_of(WRITTEN / 'compseg.sh')} lines"
    return [
        Row(named, mine, f"`{script.name}`, {lines_of(script)} lines", other)
        for script, theirs in peers.items()
        for named, mine, other in (
            (what, ours.wall, theirs.wall),
            ("the same: processor seconds", ours.processor, theirs.processor),
            ("the same: peak memory of a process, GB", ours.memory, theirs.memory),
        )
    ]


def as_files(folder: Path, size: int, channels: int, count: int) -> Path:
    """Spots of the phantom as float32 .npy files, and their manifest."""
    folder.mkdir(parents=True)
    source = WithTest(instantiate(few_spots_source(size, count, channels)))
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sample", "image", "label", "split", "patient"])
        for info in source.infos():
            np.save(folder / f"{info.name}.npy", source.read(info).image.astype(np.float32))
            table.writerow([info.name, f"{info.name}.npy", info.label, info.split, info.patient])
    return folder / "labels.csv"


def taken_by(script: Path, manifest: Path, out: Path, epochs: int) -> Taken:
    """Run a script and all that it starts."""
    shutil.rmtree(out, ignore_errors=True)
    runner = ["sh"] if script.suffix == ".sh" else [sys.executable]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log, begun = out.with_suffix(".log"), time.perf_counter()
    with log.open("w") as file:
        command = [*runner, str(script), str(manifest), str(out), str(epochs)]
        actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), target) for target in (1, 2)]
        pid = os.posix_spawnp(command[0], command, {**os.environ, **paths}, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{script.name}: failed; {log.read_text()[-2000:]}")
    return Taken(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def lines_of(script: Path) -> int:
    """Lines that hold code."""
    lines = [line.strip() for line in script.read_text().splitlines()]
    return sum(bool(line) and not line.startswith(("#", '"""')) for line in lines)
