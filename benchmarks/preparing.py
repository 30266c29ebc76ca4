"""A cohort three times larger than a limit of memory is prepared within it; the peak, as the system counts it.

The process may take no more private memory than the limit (RLIMIT_DATA), beside what its libraries take when they are
imported. One file is listed under many names, so that no gigabytes are written first.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import Row, peak_memory

MB = 2**20
SHAPE = (256, 256, 128)  # 32 MB in float32


def measure(folder: Path, limit: int = 256) -> list[Row]:
    """Rows of the table: the peak beside the limit, in MB.

    Args:
        folder: To work in.
        limit: MB of memory beside what the imported libraries take.
    """
    write(folder / "given", 3 * limit)
    command = [sys.executable, __file__, "--prepare", str(folder / "given"), "--limit", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = float(done.stdout.split()[-1])
    return [Row(f"preparing {3 * limit} MB of cubes: memory taken, MB", peak, "the limit", float(limit))]


def write(folder: Path, size: int) -> None:
    """A manifest of cubes of some MB in all; a cube is one file under several names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "s0.npy", rng.random(SHAPE, np.float32) + np.linspace(1, 2, SHAPE[2], dtype=np.float32))
    count = -(-size * MB // (folder / "s0.npy").stat().st_size)
    for number in range(1, count):
        os.link(folder / "s0.npy", folder / f"s{number}.npy")
    rows = [f"s{number},s{number}.npy,{number % 2}" for number in range(count)]
    (folder / "labels.csv").write_text("\n".join(["sample,image,label", *rows]) + "\n")


def prepare_within(folder: Path, limit: int) -> None:
    """Prepare the cohort within the limit, and print what was taken, in MB."""
    from compseg.cohort import prepare
    from compseg.sources import Images

    before = _private()
    resource.setrlimit(resource.RLIMIT_DATA, (before + limit * MB, resource.RLIM_INFINITY))
    peak = peak_memory(lambda: prepare(Images(folder / "labels.csv"), folder / "c.zarr", progress=False))
    print(peak / MB)


def _private() -> int:
    """Bytes that count towards RLIMIT_DATA."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--limit", type=int, default=256)
    given = parser.parse_args()
    if given.prepare is not None:
        prepare_within(given.prepare, given.limit)
    else:
        with tempfile.TemporaryDirectory() as made:
            print(measure(Path(made), given.limit))
