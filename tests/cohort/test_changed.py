"""A cohort that was changed, damaged or replaced is an error when it is read, and never other values."""

import json
import pickle
import shutil

import numpy as np
import pytest
import zarr
from memory_source import MemorySource

from compseg.cohort import Cohort, prepare, store
from compseg.errors import CompsegError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("changed") / "c"
    prepare(MemorySource(size=(40, 40, 3)), path, chunk=16, progress=False)
    return path


@pytest.fixture
def path(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "c")


def table(path, edit):
    root = json.loads((path / "zarr.json").read_text())
    edit(root["attributes"]["compseg"])
    (path / "zarr.json").write_text(json.dumps(root))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def rewrite(path):
    zarr.open_group(path, mode="a")["samples/s01/image"][3, 4, 1] = 7


DAMAGE = {
    "lost": lambda path: (path / "samples/s01/image/c/0/0/0").unlink(),
    "one bit": lambda path: flip(path / "samples/s01/image/c/0/0/0"),
    "one pixel": rewrite,
    "other pixels": lambda path: shutil.copy(path / "samples/s02/image/c/0/0/0", path / "samples/s01/image/c/0/0/0"),
}
CORNER = slice(0, 3), slice(0, 3)


@pytest.mark.parametrize("window", [None, CORNER], ids=["whole", "corner"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_in_one_line(path, damage, window):
    DAMAGE[damage](path)
    cohort = Cohort.open(path)
    if window is not None and damage in ("one pixel", "other pixels"):
        return  # the checksum is that of the whole array; a corner of sound blocks cannot tell
    if window is not None and damage == "one bit":
        window = slice(0, 40), slice(0, 39)  # the block that is damaged, and still not the whole
    with pytest.raises(CompsegError, match=r"samples/s01/image: damaged or missing .*compseg\.check") as said:
        cohort.image("s01", window)
    assert "\n" not in str(said.value)
    np.testing.assert_array_equal(cohort.image("s00"), Cohort.open(path).image("s00"))


@pytest.mark.parametrize("window", [None, CORNER], ids=["whole", "corner"])
def test_zeros_that_were_written_are_zeros(path, window):
    assert not (path / "samples/s00/truth/c").exists()
    mask = Cohort.open(path).truth("s00", window)
    assert mask is not None
    assert not mask.any()
    shutil.rmtree(path / "samples/s01/truth/c")
    with pytest.raises(CompsegError, match=r"s01/truth: damaged or missing \(its file is missing"):
        Cohort.open(path).truth("s01", window)


def test_each_array_is_verified_once(path, monkeypatch):
    cohort, seen = Cohort.open(path), []
    monkeypatch.setattr(store, "checksum", lambda _: seen.append(1) or cohort.record("s01").checksums["image"])
    for again in (lambda: cohort, lambda: cohort, lambda: pickle.loads(pickle.dumps(cohort))):
        again().image("s01")
    assert len(seen) == 1


CHANGES = {
    "label": lambda about: about["samples"][0].update(label=1),
    "split": lambda about: about["samples"][0].update(split={"test": "val"}.get(about["samples"][0]["split"], "test")),
    "patient": lambda about: about["samples"][0].update(patient="p9"),
    "pixels": lambda about: about["samples"][0]["checksums"].update(image="0" * 64),
    "fewer": lambda about: about["samples"].pop(),
    "axis": lambda about: about["channels"].update(values=[1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_fingerprint(path, change):
    before = Cohort.open(path)
    assert before.is_unchanged()
    table(path, CHANGES[change])
    assert Cohort.open(path).fingerprint != before.fingerprint
    assert not before.is_unchanged()


def test_what_does_not_change_it(path, tmp_path):
    before = Cohort.open(path)
    table(path, lambda about: about.update(pixel_size=3.0))
    assert before.is_unchanged()
    shutil.rmtree(path)
    assert before.is_unchanged()  # where nothing is, nothing else is
    prepare(MemorySource(size=(40, 40, 3)), tmp_path / "other", chunk=40, progress=False)
    assert Cohort.open(tmp_path / "other").fingerprint == before.fingerprint


def test_a_cohort_that_is_replaced_while_it_is_read(path):
    cohort = Cohort.open(path)
    cohort.image("s00")
    prepare(MemorySource(size=(40, 40, 3), seed=1), path, chunk=16, progress=False, overwrite=True)
    with pytest.raises(CompsegError, match="was replaced while it was in use"):
        cohort.image("s01")
