"""Prediction: the same files whatever the tiles, read a window at a time, and what is done stays done."""

from __future__ import annotations

import csv
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from compseg.errors import CompsegError
from compseg.evaluation.thresholds import fixed
from compseg.inference import Segmenter, prediction
from compseg.inference.images import NewImage, Reading, new_images
from compseg.inference.prediction import predict, prefetched
from compseg.inputs import InputSpec
from compseg.models import SpectralSpatial
from compseg.preprocessing import Preprocess, tissue_mask
from compseg.samples import Channels
from running import HANGS

FIRST = Reading(InputSpec(channels_first=True))


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    net = SpectralSpatial(3, width=8, norm="none")
    torch.nn.init.normal_(net.output.weight)
    return Segmenter(net, Preprocess(3), {}, {}, Channels(3), "nonzero", "float32", fixed(0.5))


def cube(height=70, width=50, seed=0):
    image = np.random.default_rng(seed).random((height, width, 3)).astype("f4")
    image[:9] = 0
    return image


def rows_of(out):
    with (out / "areas.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tiles_leave_the_same_files(segmenter, tmp_path):
    np.save(tmp_path / "a.npy", cube())
    images = new_images(tmp_path / "a.npy")
    rows = [predict(segmenter, images, tmp_path / name, tile=side) for name, side in (("whole", None), ("tiled", 24))]
    assert rows[0] == rows[1]
    whole, tiled = (np.load(tmp_path / name / "maps" / "a.npy") for name in ("whole", "tiled"))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    np.testing.assert_allclose(whole, segmenter(cube()), atol=1e-6)
    for file in ("a.png", "a_mask.png"):
        written = [np.asarray(Image.open(tmp_path / name / "maps" / file)).astype(int) for name in ("whole", "tiled")]
        assert np.abs(written[0] - written[1]).mean() < 0.1


def test_a_table_of_many_images_grows_line_by_line(segmenter, tmp_path):
    for seed in range(5):
        np.save(tmp_path / f"s{seed}.npy", cube(seed=seed))
    returned = predict(segmenter, new_images(tmp_path), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["sample"] for row in rows] == [f"s{seed}" for seed in range(5)]
    assert [{key: str(value) for key, value in row.items()} for row in returned] == rows
    predict(segmenter, new_images(tmp_path / "s3.npy"), tmp_path / "out", overwrite=True)
    assert [row["sample"] for row in rows_of(tmp_path / "out")] == ["s3"]  # another prediction, another table


def test_what_was_done_before_a_fault_stays(segmenter, tmp_path):
    np.save(tmp_path / "a.npy", cube())
    np.save(tmp_path / "b.npy", cube()[..., :2])
    np.save(tmp_path / "c.npy", cube())
    with pytest.raises(CompsegError, match=r"b\.npy: image of shape .* expected \(H, W, 3\)"):
        predict(segmenter, new_images(tmp_path), tmp_path / "out")
    assert [row["sample"] for row in rows_of(tmp_path / "out")] == ["a"]
    (tmp_path / "b.npy").write_bytes(b"no array")  # found when it is opened, ahead of time
    with pytest.raises(CompsegError, match=r"b\.npy: cannot be read"):
        predict(segmenter, new_images(tmp_path), tmp_path / "again")
    assert [row["sample"] for row in rows_of(tmp_path / "again")] == ["a"]
    assert (tmp_path / "again" / "maps" / "a.png").is_file()


def test_channels_first_files_and_masks_of_another_size(segmenter, tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(cube(), -1, 0))
    predict(segmenter, new_images(tmp_path / "a.npy"), tmp_path / "out", FIRST, tile=30)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "maps" / "a.npy"), segmenter(cube()), atol=1e-6)
    np.save(tmp_path / "mask.npy", np.ones((3, 4), bool))
    wrong = NewImage("a", tmp_path / "a.npy", tissue=tmp_path / "mask.npy")
    with pytest.raises(CompsegError, match=r"mask of \(3, 4\) for an image of \(70, 50\)"):
        predict(segmenter, [wrong], tmp_path / "out", FIRST)


def test_otsus_level_is_the_whole_images(segmenter, tmp_path):
    image = cube(150, 40) + np.linspace(0, 3, 150, dtype="f4")[:, None, None]
    np.save(tmp_path / "a.npy", image)
    opened = new_images(tmp_path / "a.npy")[0].open().with_tissue("otsu")
    window = (slice(30, 130), slice(5, 30))
    np.testing.assert_array_equal(opened.tissue(window), tissue_mask(image, "otsu")[window])


def test_pixels_of_npy_files_stay_on_disk(tmp_path):
    np.save(tmp_path / "a.npy", cube())
    assert isinstance(new_images(tmp_path / "a.npy")[0].open().image((slice(0, 5), slice(0, 5))), np.memmap)


def test_one_tiles_raw_values_are_in_memory_while_the_network_runs(segmenter, tmp_path, monkeypatch):
    """Those of the next one, which is read meanwhile; its own have become the network's input."""
    image, alive, kept, another = cube()[10:], [], [], threading.Semaphore(0)
    tiles = segmenter.tiles(image.shape, 24)

    def read_on(*given, read=prediction._read):
        piece = read(*given)
        kept.append(weakref.ref(piece.image))
        if len(kept) > 1:
            another.release()
        return piece

    def at_work(*_):
        assert len(alive) == len(tiles) - 1 or another.acquire(timeout=HANGS)
        alive.append(sum(one() is not None for one in kept))

    monkeypatch.setattr(prediction, "_read", read_on)
    segmenter.model.register_forward_hook(at_work)
    np.save(tmp_path / "a.npy", image)
    predict(segmenter, new_images(tmp_path / "a.npy"), tmp_path / "out", tile=24)
    assert len(kept) == len(tiles) > 4
    assert alive == [1] * (len(tiles) - 1) + [0]


def test_photographs_keep_their_colours_under_the_overlay(segmenter, tmp_path):
    photograph = np.zeros((30, 40, 3), np.uint8)
    photograph[..., 0] = 200
    Image.fromarray(photograph).save(tmp_path / "a.png")
    blind = replace(segmenter, tissue_rule="all")
    torch.nn.init.zeros_(blind.model.output.weight)
    torch.nn.init.constant_(blind.model.output.bias, -40.0)
    predict(blind, new_images(tmp_path / "a.png"), tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "maps" / "a.png")), photograph)


def test_without_a_threshold_nothing_is_written(segmenter, tmp_path):
    np.save(tmp_path / "a.npy", cube())
    with pytest.raises(CompsegError, match="has no threshold yet"):
        predict(segmenter.with_threshold(None), new_images(tmp_path / "a.npy"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_seams_that_a_norm_leaves_are_told(tmp_path, caplog):
    net = SpectralSpatial(3, width=8, norm="group")
    segmenter = Segmenter(net, Preprocess(3), {}, {}, Channels(3), "nonzero", "float32", fixed(0.5))
    np.save(tmp_path / "a.npy", cube())
    predict(segmenter, new_images(tmp_path / "a.npy"), tmp_path / "out")
    assert not caplog.records
    predict(segmenter, new_images(tmp_path / "a.npy"), tmp_path / "out", tile=30)
    assert "its GroupNorm averages over the whole image" in caplog.text


def test_the_next_call_runs_while_a_result_is_in_use_and_not_before_it_is_ready():
    begun: list[int] = []

    def call(number):
        begun.append(number)
        return number

    def ready(number):
        executor.submit(int).result()  # what was submitted before is done
        assert begun == list(range(number + 1))
        return 10 * number

    with ThreadPoolExecutor(1) as executor:
        for result in prefetched((lambda number=number: call(number) for number in range(5)), executor, ready):
            executor.submit(int).result()
            assert begun == list(range(min(result // 10 + 2, 5)))


def test_what_was_handed_out_is_not_held():
    with ThreadPoolExecutor(1) as executor:
        results = prefetched((set for _ in range(3)), executor)
        held = weakref.ref(next(results))
        assert held() is None
