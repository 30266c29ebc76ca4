"""Several segmenters as one: the mean of their maps, in a folder that loads, predicts and is checked as any other."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from compseg.errors import CompsegError
from compseg.evaluation.thresholds import fixed
from compseg.inference import load_segmenter
from compseg.inference.ensemble import Ensemble
from compseg.inference.images import new_images
from compseg.inference.outputs import fingerprint
from compseg.inference.prediction import predict


@pytest.fixture(scope="module")
def members(trained):
    """A trained segmenter, which reads contrasts, and two that differ from it in weights and preprocessing."""
    found = [load_segmenter(trained.run) for _ in range(3)]
    torch.manual_seed(0)
    for number, each in enumerate(found):
        for weight in each.model.parameters():
            weight.data += 0.05 * number * torch.randn_like(weight)
        each.preprocess.mean += 0.1 * number
        each.threshold = fixed(0.2 + 0.1 * number)
    return found


@pytest.fixture
def cube():
    return np.random.default_rng(0).random((40, 36, 8)).astype(np.float32)


def test_a_map_is_the_mean_of_the_maps(members, cube):
    maps = np.array([each(cube) for each in members])
    assert np.ptp(maps, axis=0).max() > 0.01
    found = Ensemble(members)(cube)
    assert np.abs(found - maps.mean(axis=0)).max() < 1e-6
    assert found.dtype == np.float32


def test_a_map_in_tiles_is_that_of_the_whole(members, cube, tmp_path):
    one = Ensemble(members)
    np.save(tmp_path / "one.npy", cube)
    (row,) = predict(one, new_images(tmp_path / "one.npy"), tmp_path / "maps", tile=24)
    assert np.abs(np.load(tmp_path / "maps/maps/one.npy") - one(cube)).max() < 1e-4
    assert row["threshold"] == pytest.approx(0.3)


def test_members_that_read_samples_as_they_are_have_no_background(members, cube, tmp_path):
    plain = dataclasses.replace(members[1], pseudo_labels=None, pseudo_labels_node=None)
    one = Ensemble([plain, members[0]])
    np.save(tmp_path / "one.npy", cube)
    predict(one, new_images(tmp_path / "one.npy"), tmp_path / "maps", tile=24)
    assert np.abs(np.load(tmp_path / "maps/maps/one.npy") - one(cube)).max() < 1e-4
    assert np.abs(one(cube) - (plain(cube) + members[0](cube)) / 2).max() < 1e-6


def test_it_is_saved_and_loaded(members, cube, tmp_path):
    one = Ensemble(members)
    one.save(tmp_path / "all")
    again = load_segmenter(tmp_path / "all")
    assert isinstance(again, Ensemble)
    assert np.array_equal(again(cube), one(cube))
    assert (again.threshold.value, again.threshold.low, again.threshold.high) == (pytest.approx(0.3), 0.2, 0.4)
    assert np.array_equal(again.mask(cube), one(cube) > again.threshold.value)
    assert fingerprint(again) == fingerprint(one) != fingerprint(members[0])
    again.with_threshold(fixed(0.9)).save_description(tmp_path / "all")
    assert load_segmenter(tmp_path / "all").threshold.value == 0.9
    assert "3 segmenters" in repr(again)


def test_what_is_damaged_or_does_not_fit_is_refused(members, tmp_path):
    with pytest.raises(CompsegError, match="its members differ in dtype"):
        Ensemble([members[0], dataclasses.replace(members[1], dtype="float32")])
    Ensemble(members).save(tmp_path / "all")
    path = tmp_path / "all/ensemble.json"
    before = path.read_text()
    path.write_text(before.replace('"members": 3', '"members": 2'))
    with pytest.raises(CompsegError, match=r"ensemble.json: its checksum is not that of its values"):
        load_segmenter(tmp_path / "all")
    path.write_text("{")
    with pytest.raises(CompsegError, match=r"ensemble.json: damaged"):
        load_segmenter(tmp_path / "all")
    path.write_text(before)
    assert json.loads(before)["members"] == 3
    (tmp_path / "all/members/2/segmenter.json").unlink()
    with pytest.raises(CompsegError, match=r"members/2: holds no segmenter"):
        load_segmenter(tmp_path / "all")
