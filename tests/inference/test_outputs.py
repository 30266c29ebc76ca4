"""No name leads out of the folder of a prediction, and no file overwrites another; a folder is one prediction."""

from __future__ import annotations

import csv
import json
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compseg.cohort import find_problems, prepare
from compseg.errors import CompsegError
from compseg.evaluation.thresholds import fixed
from compseg.files import from_cell
from compseg.inference.images import NewImage, new_images
from compseg.inference.outputs import fingerprint
from compseg.inference.prediction import predict
from compseg.models import SpectralSpatial
from compseg.samples import Channels, SampleArrays, SampleInfo
from hostile_names import NAMES, READABLE, UNREADABLE, changed, rename_samples, snapshot


def cube(seed):
    return np.random.default_rng(seed).random((9, 8, 3)).astype("f4")


class Cubes:
    """A source of `count` samples of random numbers."""

    def __init__(self, count):
        self.count = count

    def infos(self):
        return [SampleInfo(f"s{i}", i % 2, split="test") for i in range(self.count)]

    def read(self, info):
        return SampleArrays(cube(int(info.name[1:])))

    def channels(self):
        return Channels(3)

    def provenance(self):
        return {}


def table(out):
    with (out / "areas.csv").open(newline="", encoding="utf-8") as file:
        return [{key: from_cell(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


def test_every_image_has_files_of_its_own_whatever_it_is_called(segmenter, tmp_path):
    images = []
    for seed, name in enumerate(NAMES):
        np.save(tmp_path / f"{seed}.npy", cube(seed))
        images.append(NewImage(name, tmp_path / f"{seed}.npy"))
    before, out = snapshot(tmp_path), tmp_path / "below" / "out"
    predict(segmenter, images, out)
    assert all(path in (out, out.parent) or out in path.parents for path in changed(before, snapshot(tmp_path)))
    rows = table(out)
    assert [row["sample"] for row in rows] == [name.replace("\udcff", "\\udcff") for name in NAMES]
    assert len(list((out / "maps").iterdir())) == 3 * len(NAMES)
    for seed, row in enumerate(rows):
        activation = np.load(out / "maps" / f"{row['file']}.npy")
        np.testing.assert_allclose(activation, segmenter(cube(seed)), atol=1e-6)
        mask = np.asarray(Image.open(out / "maps" / f"{row['file']}_mask.png")) > 0
        np.testing.assert_array_equal(mask, activation > 0.5)


def test_a_strangers_cohort_writes_into_the_folder_alone(segmenter, tmp_path):
    names = READABLE
    cohort, out = tmp_path / "c.zarr", tmp_path / "out"
    prepare(Cubes(len(names)), cohort, progress=False)
    rename_samples(cohort, names)
    before = snapshot(tmp_path)
    predict(segmenter, new_images(cohort), out)
    assert all(path == out or out in path.parents for path in changed(before, snapshot(tmp_path)))
    assert [row["sample"] for row in table(out)] == names
    problems = {problem.sample for problem in find_problems(cohort) if "no name for a file" in problem.what}
    assert problems == {name for name in names if name not in ("日本語", "A_1", "a_1", "a", "a_mask", "é")}
    assert any("has the name of another sample" in problem.what for problem in find_problems(cohort))


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_name_that_leads_out_of_the_cohort_reads_and_writes_nothing(segmenter, tmp_path, name):
    cohort = tmp_path / "c.zarr"
    prepare(Cubes(2), cohort, progress=False)
    rename_samples(cohort, [name])
    before = snapshot(tmp_path)
    with pytest.raises(CompsegError, match="damaged or missing"):
        predict(segmenter, [image for image in new_images(cohort) if image.name == name], tmp_path / "out")
    written = changed(before, snapshot(tmp_path))
    assert set(written) <= {tmp_path / "out", tmp_path / "out" / "prediction.json"}
    assert any(name in problem.sample and "no name for a file" in problem.what for problem in find_problems(cohort))


def test_two_samples_of_one_name_are_refused_before_anything_is_written(segmenter, tmp_path):
    np.save(tmp_path / "a.npy", cube(0))
    with pytest.raises(CompsegError, match=r"'a': .* twice"):
        predict(segmenter, [NewImage("a", tmp_path / "a.npy")] * 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hidden_files_are_no_images_and_pipes_do_not_hang(segmenter, tmp_path, caplog):
    np.save(tmp_path / "a.npy", cube(0))
    (tmp_path / "._a.npy").write_bytes(b"resource fork")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        images = new_images(tmp_path)
    assert [image.name for image in images] == ["a"]
    skipped = {
        "folder.png: is a folder",
        "lost.png: does not exist",
        *(f"{n}.png: is a pipe, a socket or a device" for n in ("pipe", "socket")),
    }
    assert {
        record.message.removeprefix(f"{tmp_path}/").removesuffix("; skipped") for record in caplog.records
    } == skipped
    for alone, words in (
        ("pipe.png", "is a pipe"),
        ("p" * 5000, "file name too long"),
        ("a\0", "null"),
        ("b", "does not exist"),
    ):
        with pytest.raises(CompsegError, match=words):
            new_images(tmp_path / alone)


def test_a_pipe_in_a_cohort_does_not_hang(segmenter, tmp_path):
    cohort = tmp_path / "c.zarr"
    prepare(Cubes(2), cohort, progress=False)
    (stored,) = (path for path in (cohort / "samples/s0/image/c").rglob("*") if path.is_file())
    for part in (stored, cohort / "samples/s1/image/zarr.json"):
        part.unlink()
        os.mkfifo(part)
    assert {problem.sample for problem in find_problems(cohort)} >= {"s0", "s1"}
    (cohort / "zarr.json").unlink()
    os.mkfifo(cohort / "zarr.json")
    with pytest.raises(CompsegError, match="no cohort"):
        find_problems(cohort)


def folder_of(tmp_path, names, seed=0):
    tmp_path.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        np.save(tmp_path / f"{name}.npy", cube(seed + place))
    return new_images(tmp_path)


def test_the_same_prediction_goes_on_also_with_more_images(segmenter, tmp_path):
    out = tmp_path / "out"
    images = folder_of(tmp_path / "in", "abc")
    (tmp_path / "in" / "b.npy").write_bytes(b"no array")
    with pytest.raises(CompsegError, match=r"b\.npy: cannot be read"):
        predict(segmenter, images, out)
    (tmp_path / "in" / "b.npy").unlink()  # what could not be mapped is left out
    left = out / "maps" / f".a.npy.{'0' * 32}.partial"
    left.write_bytes(b"of a killed process")
    predict(segmenter, new_images(tmp_path / "in"), out)
    predict(segmenter, folder_of(tmp_path / "in", "abcd"), out)
    assert [row["sample"] for row in table(out)] == list("abcd")
    assert {path.stem for path in (out / "maps").glob("*.npy")} == set("abcd")
    assert not left.exists()
    assert "file" not in table(out)[0]


OTHERS = {
    "fewer images": lambda s, p: (s, folder_of(p / "in", "ab")[:1], "of .*b.npy"),
    "images of another folder": lambda s, p: (s, folder_of(p / "other", "ab"), "of .*in/a.npy"),
    "a threshold": lambda s, p: (s.with_threshold(fixed(0.4)), folder_of(p / "in", "ab"), "by another threshold"),
    "a segmenter": lambda s, p: (replace(s, tissue_rule="otsu"), folder_of(p / "in", "ab"), "by another segmenter"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_prediction_is_refused_or_replaces_all_of_the_first(segmenter, tmp_path, other):
    out = tmp_path / "out"
    predict(segmenter, folder_of(tmp_path / "in", "ab"), out)
    (out / "maps" / "notes.txt").write_text("mine")
    another, images, words = other(segmenter, tmp_path)
    before = snapshot(out)
    with pytest.raises(CompsegError, match=f"{words}.*overwrite=true"):
        predict(another, images, out)
    assert snapshot(out) == before
    predict(another, images, out, overwrite=True)
    fresh = tmp_path / "fresh"
    predict(another, images, fresh)
    (out / "maps" / "notes.txt").unlink()
    assert {path.relative_to(out) for path in out.rglob("*")} == {path.relative_to(fresh) for path in fresh.rglob("*")}
    assert table(out) == table(fresh)
    for file in (fresh / "maps").iterdir():
        assert (out / "maps" / file.name).read_bytes() == file.read_bytes()


def test_a_folder_of_something_else_is_left_alone(segmenter, tmp_path):
    images = folder_of(tmp_path / "in", "a")
    for found in ("areas.csv", "maps/a.npy"):
        out = tmp_path / found.replace("/", "_")
        (out / found).parent.mkdir(parents=True)
        (out / found).write_text("mine")
        before = snapshot(tmp_path)
        for overwrite in (False, True):
            with pytest.raises(CompsegError, match=r"no prediction\.json that says whose; give another out="):
                predict(segmenter, images, out, overwrite=overwrite)
        assert snapshot(tmp_path) == before


def test_a_strangers_record_deletes_nothing_outside(segmenter, tmp_path):
    images, out = folder_of(tmp_path / "in", "a"), tmp_path / "out"
    record = {
        "segmenter": "",
        "threshold": 0.5,
        "images": {"b": {"file": "../../in/a"}, "c": {"file": str(tmp_path / "in/a")}},
    }
    out.mkdir()
    (out / "prediction.json").write_text(json.dumps(record))
    before = snapshot(tmp_path / "in")
    predict(segmenter, images, out, overwrite=True)
    assert snapshot(tmp_path / "in") == before
    (out / "prediction.json").write_text("[]")
    with pytest.raises(CompsegError, match=r"prediction\.json: damaged"):
        predict(segmenter, images, out, overwrite=True)


def test_a_fingerprint_is_of_weights_and_settings(segmenter):
    other = replace(segmenter, model=SpectralSpatial(3, width=8, norm="none"))
    prints = [
        fingerprint(one)
        for one in (segmenter, segmenter.with_threshold(fixed(0.1)), other, replace(segmenter, dtype="float16"))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
