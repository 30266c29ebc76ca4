"""The folder of a segmenter: what was stored is read, in every format, and damage is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compseg.comparative import FisherPseudoLabels
from compseg.errors import CompsegError
from compseg.evaluation.thresholds import fixed
from compseg.inference import Segmenter, load_segmenter
from compseg.inference.folder import MOVED_TARGETS, _moved, read_description
from compseg.models import SpectralStem, UNet
from compseg.preprocessing import Preprocess, StandardNormalVariate
from compseg.samples import Channels

STORED = (
    Path(__file__).parent / "stored"
)  # random weights of tiny networks; stored/README.md has the code that made them
FORMATS = sorted(path.name for path in STORED.iterdir() if path.is_dir())
C, HEIGHT, WIDTH = 7, 24, 20


def stored_image() -> np.ndarray:
    values = np.sin(np.arange(HEIGHT * WIDTH * C, dtype="f8") ** 2 / 1000).reshape(HEIGHT, WIDTH, C) + 2
    values[:4] = 0
    return values.astype("f4")


def assert_same_map(found: np.ndarray, expected: np.ndarray) -> None:
    """To rounding; less near the bottom, where spectra are nearly lines, of which detrending leaves rounding alone."""
    np.testing.assert_allclose(found[:12], expected[:12], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=0)


@pytest.fixture
def made() -> Segmenter:
    """A segmenter with all parts, and weights of several types."""
    torch.manual_seed(0)
    net = SpectralStem(C, UNet(3, width=4, depth=1, norm="batch"), components=3)
    nn.init.normal_(net.net.output.weight)
    preprocess = Preprocess(C, [StandardNormalVariate()])
    preprocess.std.uniform_(0.5, 2)
    unet = {"_target_": "compseg.models.UNet", "in_channels": 3, "width": 4, "depth": 1, "norm": "batch"}
    correction = {"_target_": "compseg.preprocessing.StandardNormalVariate"}
    pseudo_labels = FisherPseudoLabels(C)
    pseudo_labels.filter.normal_()
    return Segmenter(
        net,
        preprocess,
        {"_target_": "compseg.models.SpectralStem", "in_channels": C, "components": 3, "net": unet},
        {"_target_": "compseg.preprocessing.Preprocess", "channels": C, "corrections": [correction]},
        Channels(C, tuple(range(C)), "cm-1"),
        "nonzero",
        "float32",
        fixed(0.4),
        {"run": "r", "val_loss": 0.5},
        pseudo_labels,
        {"_target_": "compseg.comparative.FisherPseudoLabels", "channels": C},
    )


def description(folder: Path) -> dict:
    return json.loads((folder / "segmenter.json").read_text())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_map_that_it_gave(name):
    segmenter = load_segmenter(STORED / name)
    expected = np.load(STORED / name / "map.npy")
    assert expected.std() > 0.1
    assert_same_map(segmenter(stored_image()), expected)


def test_a_format_is_stored_of_each():
    assert [description(STORED / name)["format"] for name in FORMATS] == [1, 2, 3]


@pytest.mark.parametrize("name", FORMATS)
def test_an_old_folder_is_saved_in_the_newest_format(name, tmp_path):
    folder = shutil.copytree(STORED / name, tmp_path / "segmenter")
    load_segmenter(folder).with_threshold(fixed(0.7)).save_description(folder)
    assert description(folder)["format"] == 3
    assert not (folder / "weights.pt").exists()
    again = load_segmenter(folder)
    assert again.threshold.value == 0.7
    assert_same_map(again(stored_image()), np.load(folder / "map.npy"))


def test_old_names_are_those_of_today():
    old = {
        "format": 2,
        "teacher": {"_target_": "compseg.comparative.FisherTeacher", "channels": 3, "reach": 7, "teaches": False},
        "model": {
            "_target_": "compseg.maps.cam.GradCAM",
            "net": {"_target_": "compseg.models.padding.Padded", "multiple": 2},
        },
        "preprocess": {
            "_target_": "compseg.spectra.Preprocess",
            "corrections": [{"_target_": "compseg.spectra.corrections.Detrend"}],
        },
    }
    moved = _moved(old)
    assert (
        FisherPseudoLabels(**{k: v for k, v in moved["pseudo_labels"].items() if k != "_target_"}).supervises is False
    )
    assert moved["model"]["_target_"] == "compseg.inference.cam.GradCAM"
    assert moved["model"]["net"]["_target_"] == "compseg.models.geometry.Padded"
    assert moved["preprocess"]["_target_"] == "compseg.preprocessing.Preprocess"
    assert moved["preprocess"]["corrections"][0]["_target_"] == "compseg.preprocessing.Detrend"
    assert "teacher" not in moved
    for target in MOVED_TARGETS.values():
        assert not any(f"{target}.".startswith(f"{name}.") for name in MOVED_TARGETS), "it has moved on"


def test_what_training_fetched_is_in_the_weights_of_an_old_folder():
    old = {"_target_": "segmentation_models_pytorch.Unet", "encoder_weights": "imagenet", "classes": 1}
    assert _moved(old) == old | {"encoder_weights": None}


def test_comes_back_as_it_was_saved(made, tmp_path):
    made.save(tmp_path)
    again = load_segmenter(tmp_path)
    np.testing.assert_array_equal(again(stored_image()), made(stored_image()))
    for part in ("model", "preprocess", "pseudo_labels"):
        ours, theirs = (getattr(segmenter, part).state_dict() for segmenter in (made, again))
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    for name in ("channels", "threshold", "provenance", "tissue_rule", "dtype", "model_node", "pseudo_labels_node"):
        assert getattr(again, name) == getattr(made, name)
    assert {path.name for path in tmp_path.iterdir()} == {"segmenter.json", "weights.safetensors"}


def test_weights_that_share_memory_are_stored(tmp_path, monkeypatch):
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    tied[1].weight = tied[0].weight
    conv = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
    node = {"_target_": "torch.nn.Sequential", "_args_": [conv, conv]}
    preprocess = {"_target_": "compseg.preprocessing.Preprocess", "channels": 3}
    saved = Segmenter(
        tied.to(memory_format=torch.channels_last), Preprocess(3), node, preprocess, Channels(3), dtype="float32"
    )
    saved.save(tmp_path)
    image = np.random.default_rng(0).random((5, 6, 3))
    np.testing.assert_array_equal(load_segmenter(tmp_path)(image), saved(image))


def test_a_description_alone_keeps_the_checksum(made, tmp_path):
    made.save(tmp_path)
    before = description(tmp_path)["weights"]
    content = (tmp_path / "weights.safetensors").read_bytes()
    made.with_threshold(fixed(0.1)).save_description(tmp_path)
    assert description(tmp_path)["weights"] == before
    assert (tmp_path / "weights.safetensors").read_bytes() == content
    assert load_segmenter(tmp_path).threshold.value == 0.1


@pytest.mark.parametrize("place", [3, 100, -1])
def test_one_damaged_byte_is_found(made, tmp_path, place):
    made.save(tmp_path)
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CompsegError,
        match=r"safetensors: weights cannot be read, .* \(its checksum is not the one in segmenter\.json\); copy",
    ) as found:
        load_segmenter(tmp_path)
    assert "\n" not in str(found.value)


def test_weights_of_another_run_are_refused(made, tmp_path):
    made.save(tmp_path / "a")
    torch.nn.init.normal_(made.model.stem.weight)
    made.save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "weights.safetensors", tmp_path / "b")
    with pytest.raises(CompsegError, match="damaged or of another segmenter"):
        load_segmenter(tmp_path / "b")


def test_what_is_missing_is_named(made, tmp_path):
    with pytest.raises(CompsegError, match=r"holds no segmenter \(segmenter\.json is missing\)"):
        load_segmenter(tmp_path)
    made.save(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(CompsegError, match=r"weights\.safetensors: missing; copy the whole segmenter folder"):
        load_segmenter(tmp_path)


def test_a_run_folder_holds_its_segmenter(made, tmp_path):
    made.save(tmp_path / "run" / "segmenter")
    assert load_segmenter(tmp_path / "run").channels.count == C
    assert read_description(tmp_path / "run" / "segmenter")["format"] == 3
