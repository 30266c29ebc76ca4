"""Writes the tiny cohort that `test_stored_cohort.py` reads, and beside it the numbers that it must give.

Run it once for each new schema, with `tests/cohort` on the path: `python tests/cohort/make_stored_cohort.py`. Files of
earlier schemas stay, so that their cohorts are read for ever.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from memory_source import MemorySource

from compseg.cohort import prepare
from compseg.cohort.layout import SCHEMA

STORED = Path(__file__).parent / "stored"


def main() -> None:
    """Four samples of 8 x 8 x 3, two of them with a picture for people."""
    source = MemorySource(count=4, size=(8, 8, 3))
    splits = ("train", "train", "val", "test")
    source.samples = [
        replace(info, split=split, group=f"A{1 + i % 2}")
        for i, (info, split) in enumerate(zip(source.samples, splits, strict=True))
    ]
    values = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.zarr"
        prepare(source, path, chunk=8, pixel_size=5.5, progress=False)
        with zipfile.ZipFile(STORED / f"schema_{SCHEMA}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(path.rglob("*")):
                archive.write(file, file.relative_to(path))
    for info in source.samples:
        arrays = source.read(info)
        values[f"{info.name}/image"] = arrays.image.astype(np.float16)
        values[f"{info.name}/tissue"] = arrays.tissue
        values[f"{info.name}/truth"] = arrays.truth
        if arrays.thumbnail is not None:
            values[f"{info.name}/thumbnail"] = arrays.thumbnail
    np.savez_compressed(STORED / f"schema_{SCHEMA}.npz", **values)


if __name__ == "__main__":
    main()
