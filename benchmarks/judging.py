"""Evaluation and report: seconds from a trained run to metrics, maps, pictures and the page, against their bars.

Each is the first of its process, so that what is imported late counts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from common import Rolled, Row, cohort_of_spots, seconds
from hydra.utils import instantiate
from step import CHANNELS, few_spots_source

from compseg.cohort import Cohort, prepare
from compseg.config import compose
from compseg.log import quiet_libraries
from compseg.report.judge import judge
from compseg.samples import SampleInfo
from compseg.training import train

BARS = {"40 spots of 64 x 64 x 64": 4.0, f"8 spots of 256 x 256 x {CHANNELS}": 6.0}


class WithTest(Rolled):
    """Its validation samples are test samples too."""

    def infos(self) -> list[SampleInfo]:
        """Of all splits."""
        given = super().infos()
        again = [replace(info, name=f"{info.name}t", patient=f"{info.patient}t", split="test") for info in given]
        return given + [new for new, info in zip(again, given, strict=True) if info.split == "val"]


def measure(folder: Path, size: int = 256, count: int = 8) -> list[Row]:
    """Rows of the table."""
    quiet_libraries()
    large = prepare(
        WithTest(instantiate(few_spots_source(size, count))), folder / f"judged_{size}.zarr", progress=False
    )
    cohorts = dict(zip(BARS, (cohort_of_spots(folder), large), strict=True))
    return [
        Row(f"evaluation and report of {what}", _apart(_trained(cohort, folder)), "the bar", BARS[what])
        for what, cohort in cohorts.items()
    ]


def _trained(cohort: Cohort, folder: Path) -> Path:
    run = folder / f"run_{cohort.path.stem}"
    overrides = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.devices=1", "data.workers=0"]
    cfg = compose("train", ["data=cohort", f"data.path={cohort.path}", f"hydra.run.dir={run}", *overrides])
    run.mkdir()
    train(cfg, run)
    return run


def _apart(run: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, __file__, str(run)], capture_output=True, text=True, check=True, env=environment
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        taken = seconds(lambda: judge(Path(sys.argv[1])))
    print(json.dumps(taken))
