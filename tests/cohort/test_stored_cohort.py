"""Cohorts written by earlier versions are read for ever: one stored cohort of each schema, and the numbers in it."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from compseg.cohort import Cohort, find_problems
from compseg.samples import Channels, SampleInfo

STORED = Path(__file__).parent / "stored"


@pytest.fixture(params=sorted(STORED.glob("*.zip")), ids=lambda path: path.stem)
def stored(request, tmp_path):
    """A stored cohort, and the arrays that it must give by `NAME/PART`."""
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path / "c.zarr")
    return Cohort.open(tmp_path / "c.zarr"), np.load(request.param.with_suffix(".npz"))


def test_what_is_known_of_the_samples(stored):
    cohort, _ = stored
    assert cohort.channels == Channels(3, (1800.0, 1790.0, 1780.0), "cm-1")
    assert (cohort.tissue_rule, cohort.dtype, cohort.classes) == ("nonzero", "float16", {"N": 0, "T": 1})
    assert (cohort.pixel_size, cohort.pixel_unit) == (5.5, "um")
    assert cohort.provenance == {"source": "memory", "seed": 0, "size": [8, 8, 3]}
    assert cohort.infos == [
        SampleInfo("s00", 0, "N", "train", "A1", "p0", "s00.npy"),
        SampleInfo("s01", 1, "T", "train", "A2", "p1", "s01.npy"),
        SampleInfo("s02", 0, "N", "val", "A1", "p2", "s02.npy"),
        SampleInfo("s03", 1, "T", "test", "A2", "p3", "s03.npy"),
    ]


def test_every_array(stored):
    cohort, values = stored
    for info in cohort.infos:
        for part in ("image", "tissue", "truth", "thumbnail"):
            given, expected = getattr(cohort, part)(info.name), values.get(f"{info.name}/{part}")
            if expected is None:
                assert given is None
            else:
                assert given.dtype == expected.dtype
                np.testing.assert_array_equal(given, expected)
    assert cohort.image("s03")[7, 7].tolist() == values["s03/image"][7, 7].tolist() != [0, 0, 0]
    assert {name.partition("/")[2] for name in values} == {"image", "tissue", "truth", "thumbnail"}


def test_no_byte_has_changed(stored):
    cohort, _ = stored
    assert [problem.what for problem in find_problems(cohort.path)] == [
        f"split {split} has no {label} sample" for split, label in (("val", "disease"), ("test", "healthy"))
    ]
