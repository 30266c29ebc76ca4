import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from memory_source import MemorySource

from compseg.cohort import Cohort, find_problems, prepare
from compseg.errors import CompsegError

SPLITS = ["train", "train", "val", "val", "test", "test"]


def source(change=lambda _, arrays: arrays):
    made = MemorySource(size=(40, 40, 3), change=change)
    made.samples = [replace(info, split=split) for info, split in zip(made.samples, SPLITS, strict=True)]
    return made


def only(name, **changes):
    """A change to one sample's arrays; each value is a function of the arrays."""

    def change(info, arrays):
        return replace(arrays, **{k: f(arrays) for k, f in changes.items()}) if info.name == name else arrays

    return change


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "c"
    prepare(source(), path, chunk=16, progress=False)
    assert find_problems(path) == []
    return path


@pytest.fixture
def path(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "c")


def edit_rows(path, edit):
    file = path / "zarr.json"
    root = json.loads(file.read_text())
    edit(root["attributes"]["compseg"]["samples"])
    file.write_text(json.dumps(root))


def flip(path, offset=100):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("part", "block"),
    [("image", "c/0/0/0"), ("tissue", "c/0/0"), ("truth", "c/0/0"), ("reference", "c/0/0/0")],
)
def test_one_flipped_bit_is_found(path, part, block):
    flip(path / "samples/s01" / part / block)
    (problem,) = find_problems(path)
    assert (problem.sample, problem.file) == ("s01", f"samples/s01/{part}")
    assert "checksum" in problem.what
    cohort = Cohort.open(path)
    with pytest.raises(CompsegError, match=f"samples/s01/{part}: damaged or missing .*compseg.check"):
        cohort.part("s01", part)


def test_cut_lost_and_removed(path):
    cut = path / "samples/s00/image/c/0/0/0"
    cut.write_bytes(cut.read_bytes()[:50])
    (path / "samples/s01/image/c/0/0/0").unlink()  # zarr reads zeros where a block is missing
    shutil.rmtree(path / "samples/s02/tissue")
    problems = {problem.sample: problem for problem in find_problems(path)}
    assert sorted(problems) == ["s00", "s01", "s02"]
    assert problems["s00"].what.startswith("cannot be read")
    assert "differs from what was written" in problems["s01"].what
    assert problems["s02"].file == "samples/s02/tissue"


def test_values_and_shapes_written_by_something_else(path):
    root = zarr.open_group(path, mode="a")
    root["samples/s00/image"][3, 4, 1] = np.nan
    del root["samples/s01/image"]
    root.create_array("samples/s01/image", data=np.zeros((40, 40, 2), np.float16))
    del root["samples/s02/truth"]
    root.create_array("samples/s02/truth", data=np.zeros((39, 40), bool))
    said = {(problem.sample, problem.what) for problem in find_problems(path) if "checksum" not in problem.what}
    assert said == {
        ("s00", "1 values are NaN or infinite"),
        ("s01", "cannot be read: image is float16 (40, 40, 2), expected float16 (40, 40, 3)"),
        ("s02", "cannot be read: truth is bool (39, 40), expected bool (40, 40)"),
    }


CONTENT = {
    "empty tissue": (only("s02", tissue=lambda a: a.tissue & False), "s02", "its tissue mask is empty"),
    "truth in healthy": (only("s00", truth=lambda a: a.tissue), "s00", "healthy, but its truth marks"),
    "no truth in disease": (only("s01", truth=lambda a: a.tissue & False), "s01", "disease, but its truth is empty"),
}


@pytest.mark.parametrize(("change", "sample", "words"), CONTENT.values(), ids=CONTENT)
def test_content(tmp_path, change, sample, words):
    prepare(source(change), tmp_path / "c", progress=False)
    (problem,) = find_problems(tmp_path / "c")
    assert (problem.sample, problem.file) == (sample, f"{sample}.npy")
    assert words in problem.what
    assert problem.fix


def test_identical_pixels(tmp_path):
    twin = source(lambda info, a: replace(a, image=a.image * 0 + 1) if info.name in ("s01", "s04") else a)
    prepare(twin, tmp_path / "c", progress=False)
    problem = find_problems(tmp_path / "c")[-1]
    assert problem.what == "identical pixels: s01 (train), s04 (test)"


def test_patient_in_two_splits(path):
    edit_rows(path, lambda rows: rows[4].update(patient="p0"))
    (problem,) = find_problems(path)
    assert (problem.sample, problem.what) == ("s04", "patient p0 is in test here and in train with sample s00")


def test_name_twice(path):
    edit_rows(path, lambda rows: rows.append(rows[0]))
    assert any("has the name of another sample, s00" in problem.what for problem in find_problems(path))


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["train", "train", "val", "val", "test", "val"], ["split test has no disease sample"]),
        (["train"] * 6, ["no sample in split val"]),
        (["test"] * 6, []),
        (["train", "train", "val", "val", "val", "val"], []),
    ],
)
def test_labels_missing_from_a_split(path, splits, said):
    edit_rows(path, lambda rows: [row.update(split=split) for row, split in zip(rows, splits, strict=True)])
    assert [problem.what for problem in find_problems(path)] == said


def test_leftover_of_an_interrupted_replacement(path):
    shutil.copytree(path, path.with_name("c.partial"))
    (problem,) = find_problems(path)
    assert problem.what == "a preparation that did not finish"


def test_no_cohort(tmp_path):
    with pytest.raises(CompsegError, match="no such cohort"):
        find_problems(tmp_path / "none")
