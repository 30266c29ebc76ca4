"""What the reference shows is what happens."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import zarr
from memory_source import MemorySource

from compseg.cohort import prepare

REFERENCE = Path(__file__).parents[2] / "docs/reference/cohort.md"


def test_reading_without_compseg(tmp_path, monkeypatch):
    cohort = prepare(MemorySource(), tmp_path / "mine.zarr", progress=False)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    assert len(printed.getvalue().splitlines()) == 6
    np.testing.assert_array_equal(names["wavenumbers"], cohort.channels.values)
    last = cohort.infos[-1].name
    expected = cohort.image(last)[cohort.tissue(last)].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(names["mean_spectrum"], expected)


def test_every_attribute_is_described(tmp_path):
    prepare(MemorySource(), tmp_path / "c", progress=False)
    attributes = zarr.open_group(tmp_path / "c", mode="r").attrs["compseg"]
    text = REFERENCE.read_text(encoding="utf-8")
    for key in [*attributes, *attributes["samples"][0]]:
        assert f"`{key}`" in text
