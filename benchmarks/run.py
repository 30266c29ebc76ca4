"""`make bench`: every benchmark, as ratios measured side by side, written to docs/performance.md.

`python benchmarks/run.py step head` takes some of them; `--full` maps a mosaic of full size.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import prediction
import torch
from common import put, table

PARTS = ("data", "step", "head", "prediction", "size", "peers", "gpu_paper")


def main(arguments: list[str]) -> None:
    chosen = [part for part in arguments if not part.startswith("--")] or [*PARTS, "layout"]
    with tempfile.TemporaryDirectory() as folder:
        for part in chosen:
            begun = time.perf_counter()
            run(part, Path(folder), full="--full" in arguments)
            print(f"{part}: {time.perf_counter() - begun:.0f} s\n", flush=True)


def run(part: str, folder: Path, full: bool) -> None:
    module = importlib.import_module(part)
    if part == "layout":  # writes its own section
        module.main()
        return
    if part == "gpu_paper" and not torch.cuda.is_available():
        print("gpu_paper: no GPU here, so its table stays as it is")
        return
    measure = partial(module.measure, size=prediction.FULL) if full and part == "prediction" else module.measure
    rows = table(measure(folder))
    print(rows, flush=True)
    put(part, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
