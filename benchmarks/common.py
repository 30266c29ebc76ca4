"""What the benchmarks share: a cohort made once, a clock, and rows of a table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import instantiate

from compseg.cohort import Cohort, prepare
from compseg.config import compose

CHANNELS = 64
ROUNDS = 5


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


def cohort_of_spots(folder: Path) -> Cohort:
    """The default phantom at 64 channels, made on first use."""
    source = instantiate(compose("train").data.source, channels=CHANNELS)
    return prepare(source, folder / f"phantom_{CHANNELS}.zarr")


def side_by_side(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, taken in turns so that a busy machine hurts both alike; the first turn warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for call, taken in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])
