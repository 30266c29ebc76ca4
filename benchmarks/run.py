"""`make bench`: every benchmark, as ratios measured side by side, written to docs/research/performance.md.

`python benchmarks/run.py step head` takes some of them.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import put, table

# Those that train as compseg does last: the process then keeps what it frees, which would help the others too.
PARTS = (
    "data",
    "preparing",
    "corrections",
    "labeller",
    "step",
    "head",
    "prediction",
    "peers",
    "whole_path",
    "judging",
    "size",
    "gpu_paper",
    "gpu_default",
)


def main(arguments: list[str]) -> None:
    chosen = arguments or ("layout", *PARTS)
    with tempfile.TemporaryDirectory() as folder:
        for part in chosen:
            begun = time.perf_counter()
            run(part, Path(folder))
            print(f"{part}: {time.perf_counter() - begun:.0f} s\n", flush=True)


def run(part: str, folder: Path) -> None:
    module = importlib.import_module(part)
    if part == "layout":  # writes its own section
        module.main()
        return
    if part.startswith("gpu_") and not torch.cuda.is_available():
        print(f"{part}: no GPU here, so its table stays as it is")
        return
    rows = table(module.measure(folder))
    print(rows, flush=True)
    put(part, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
