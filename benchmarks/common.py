"""What the benchmarks share: cohorts made once, clocks, rows of a table, and the page that the tables go to."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate

from compseg.cohort import Cohort, prepare
from compseg.config import compose
from compseg.run_folder import environment
from compseg.samples import Channels, SampleArrays, SampleInfo, Source

CHANNELS = 64
ROUNDS = 5
PAGE = Path(__file__).parents[1] / "docs" / "research" / "performance.md"
HEADER = "| measured | seconds | against | seconds | ratio |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """Two things measured side by side in one run, and their ratio."""

    what: str
    ours: float
    reference: str
    theirs: float

    def markdown(self) -> str:
        """One line of the table."""
        cells = (self.what, f"{self.ours:.4f}", self.reference, f"{self.theirs:.4f}", f"{self.ours / self.theirs:.3f}")
        return f"| {' | '.join(cells)} |"


def cohort_of_spots(folder: Path, channels: int = CHANNELS) -> Cohort:
    """The default phantom at 64 x 64 pixels, made on first use."""
    source = instantiate(compose("train").data.source, channels=channels)
    return prepare(source, folder / f"phantom_{channels}.zarr")


class Rolled:
    """The phantom's training and validation samples, made of one spot a class: drawing each anew takes minutes."""

    def __init__(self, phantom: Source) -> None:
        self.phantom, self.drawn = phantom, {}

    def infos(self) -> list[SampleInfo]:
        """Those that are trained on."""
        return [info for info in self.phantom.infos() if info.split in ("train", "val")]

    def read(self, info: SampleInfo) -> SampleArrays:
        """The first spot of the sample's class, shifted by some pixels."""
        if info.label not in self.drawn:
            self.drawn[info.label] = self.phantom.read(info)
        spot = self.drawn[info.label]
        shift = sum(info.name.encode()) % len(spot.image)
        return SampleArrays(np.roll(spot.image, shift, axis=0), np.roll(spot.tissue, shift, axis=0))

    def channels(self) -> Channels:
        """The phantom's."""
        return self.phantom.channels()

    def provenance(self) -> dict:
        """The phantom's."""
        return self.phantom.provenance()


def side_by_side(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """Least seconds of each, for other work on the machine only adds; taken in turns, of which the first warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for call, taken in zip((ours, theirs), times, strict=True):
            taken.append(seconds(call))
    return min(times[0][1:]), min(times[1][1:])


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes at the peak of a call above what was resident before it."""
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    # Not getrusage: its peak is that of the process before exec too, which is the parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def growth(
    what: str, times: int, large: Callable[[], object], small: Callable[[], object], rounds: int = ROUNDS
) -> Row:
    """What is `times` as large, against that many small ones; as an exponent too, 1 where cost is in proportion."""
    whole, parts = side_by_side(large, lambda: [small() for _ in range(times)], rounds)
    exponent = 1 + math.log(whole / parts) / math.log(times)
    return Row(f"{what}, {times} times: exponent {exponent:.3f}", whole, f"{times} small ones", parts)


def table(rows: Iterable[Row]) -> str:
    """Rows as a table of the page."""
    return "\n".join([HEADER, *(row.markdown() for row in rows)])


def machine() -> str:
    """What was measured on, in a line of the page."""
    described = {**environment(), "processors": os.cpu_count(), "memory_gb": round(_memory() / 1e9)}
    return f"Machine: `{json.dumps(described)}`."


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def put(part: str, text: str) -> None:
    """Replace what the page says between the marks of a part.

    Raises:
        ValueError: If the page has no such marks.
    """
    begin, end = f"<!-- {part}: made by benchmarks/run.py -->", f"<!-- end of {part} -->"
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{PAGE}: no place for {part}; write {begin} and {end} where its table belongs")
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{machine()}\n\n{end}{after}", encoding="utf-8")


def synchronised(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
