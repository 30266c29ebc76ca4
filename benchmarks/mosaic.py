"""A mosaic from file to maps to other programs: memory, and that what was killed and continued ends as an unbroken one.

python benchmarks/mosaic.py [SIZE [CHANNELS [FOLDER]]]
"""

from __future__ import annotations

import hashlib
import os
import shutil
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
FORMATS = ("png", "ome_tiff", "ome_zarr", "envi", "npy", "geojson", "csv")


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


def run(verb: str, *words: str, kill_after: float | None = None) -> tuple[int, float, int]:
    """Exit code, processor seconds and peak bytes of a verb, which may be killed after some processor seconds."""
    command = [sys.executable, "-m", f"compseg.{verb}", *words, "hydra.output_subdir=null"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while kill_after is not None and (used := spent(process.pid)) is not None:
        if used > kill_after:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss


def spent(pid: int) -> float | None:
    """Processor seconds of a process, which do not depend on what else the machine does; None when it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def digest(folder: Path) -> dict[str, str]:
    """Of each file of a prediction or of an export, none of which is half written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    assert not any("partial" in str(path) for path in files), "a half written file is left"
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(size: int = 4096, channels: int = 64, folder: Path | None = None) -> None:
    """Print a table; fail where memory or results are not as they should be."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        make(root / "mosaic.npy", size, channels)
        # A process that is started begins with the peak of the one that starts it, which has just filled the mosaic.
        Path("/proc/self/clear_refs").write_text("5")
        data = (f"data.source.channels={channels}", "data.source.size=32", f"data.path={root}/c.zarr")
        assert run("train", *data, *TRAINED, f"hydra.run.dir={root}/run")[0] == 0
        print(f"{size} x {size} x {channels}, {(root / 'mosaic.npy').stat().st_size / 1e9:.2f} GB\n")
        print("| step | processor seconds | peak memory, GB | killed and continued |\n|---|---|---|---|")
        predict = ("predict", f"run={root}/run", f"input={root}/mosaic.npy", "device=cpu")
        peaks = [both(root, "maps", *predict)]
        peaks += [both(root, form, "export", f"maps={root}/maps", f"format={form}") for form in FORMATS]
        assert max(peaks) < LIMIT, f"{max(peaks) / 1e9:.2f} GB"


def both(root: Path, out: str, *words: str) -> int:
    """Peak bytes of a step that runs undisturbed, then is killed and continued into another folder."""
    code, taken, peak = run(*words, f"out={root}/{out}")
    assert code == 0, words
    at = killed(root / f"{out}_killed", taken, *words)
    code, _, again = run(*words, f"out={root}/{out}_killed")
    assert code == 0, words
    same = digest(root / out) == digest(root / f"{out}_killed")
    shutil.rmtree(root / f"{out}_killed")
    print(f"| {words[0]} {out} | {taken:.1f} | {max(peak, again) / 1e9:.2f} | after {at:.1f} s: the same |", flush=True)
    assert same, f"{out}: what was killed and continued is not the same"
    return max(peak, again)


def killed(out: Path, taken: float, *words: str) -> float:
    """After how many processor seconds a step was killed: earlier where it took less than before and had ended."""
    for share in (0.8, 0.6, 0.4):
        if run(*words, f"out={out}", kill_after=share * taken)[0] == -signal.SIGKILL:
            return share * taken
        shutil.rmtree(out)
    raise AssertionError(f"{words[0]} {out.name}: ended before it could be killed")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*map(int, given[:2]), *map(Path, given[2:]))
