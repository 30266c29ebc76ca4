"""Spectra corrected when a cohort is prepared: stored so, and done to new files in the same way, never twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from memory_source import MemorySource
from PIL import Image

from compseg.cohort import Cohort, Corrected, assign_splits, prepare
from compseg.errors import CompsegError
from compseg.inference import Segmenter, load_segmenter
from compseg.inference.images import Adaptation, NewImage, Reading
from compseg.models import UNet
from compseg.preprocessing import EMSC, Preprocess
from compseg.samples import SampleArrays

SPLITS = {"train": 0.6, "val": 0.2, "test": 0.2, "seed": 0}
COUNT, SIZE = 10, (9, 11, 40)
NODES = {
    "emsc": {"_target_": "compseg.preprocessing.EMSC", "wavenumbers": "auto", "reference": None},
    "mie": {"_target_": "compseg.preprocessing.ResonantMie", "wavenumbers": "auto", "reference": None, "iterations": 3},
    "cut": {"_target_": "compseg.preprocessing.Cut", "wavenumbers": "auto", "keep": [[1750, 1500]]},
}


def bands(_info, arrays: SampleArrays) -> SampleArrays:
    place = np.arange(SIZE[2])
    shape = np.exp(-(((place - 14) / 4) ** 2)) + 0.5 * np.exp(-(((place - 28) / 5) ** 2)) + 0.1
    return SampleArrays((shape * (1 + 0.1 * arrays.image[..., :1]) + 0.01 * arrays.image).astype("f4"), arrays.tissue)


def source_of(name: str) -> Corrected:
    return Corrected(MemorySource(COUNT, SIZE, change=bands), [NODES[name]], instantiate, "auto", SPLITS)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory) -> dict[str, Cohort]:
    folder = tmp_path_factory.mktemp("corrected")
    made = {name: source_of(name) for name in NODES}
    return {
        name: prepare(each, folder / f"{name}.zarr", splits=SPLITS, dtype="float32", progress=False)
        for name, each in made.items()
    }


def segmenter_of(cohort: Cohort) -> Segmenter:
    torch.manual_seed(0)
    node = {"_target_": "compseg.models.UNet", "in_channels": cohort.channels.count, "width": 8, "depth": 1}
    preprocess = {"_target_": "compseg.preprocessing.Preprocess", "channels": cohort.channels.count}
    model, given = (
        UNet(**{key: value for key, value in node.items() if key != "_target_"}),
        Preprocess(preprocess["channels"]),
    )
    return Segmenter(model, given, node, preprocess, cohort.channels, dtype=cohort.dtype, input=cohort.input)


def test_the_cohort_holds_what_emsc_with_the_mean_of_the_training_tissue_gives(cohorts):
    raw, cohort = MemorySource(COUNT, SIZE, change=bands), cohorts["emsc"]
    arrays = {info.name: raw.read(info) for info in raw.infos()}
    training = [arrays[info.name] for info in assign_splits(raw.infos(), SPLITS) if info.split == "train"]
    reference = np.mean([each.image[each.tissue].mean(0, dtype="f8") for each in training], axis=0)
    correction = EMSC(raw.channels().values, reference)
    for name, each in arrays.items():
        expected = correction(torch.from_numpy(each.image).movedim(-1, 0)[None])[0].movedim(0, -1).numpy()
        np.testing.assert_allclose(cohort.image(name)[each.tissue], expected[each.tissue], atol=1e-5)
        assert not cohort.image(name)[~each.tissue].any()


@pytest.mark.parametrize("masks", [True, False])
def test_new_files_are_asked_for_masks_only_where_these_came_with_them(masks, tmp_path):
    def change(info, arrays):
        return bands(info, arrays) if masks else replace(bands(info, arrays), tissue=None)

    source = Corrected(MemorySource(COUNT, SIZE, change=change), [NODES["emsc"]], instantiate, "otsu", SPLITS)
    cohort = prepare(source, tmp_path / "c", splits=SPLITS, tissue="otsu", dtype="float32", progress=False)
    assert cohort.input.own_tissue is masks  # what the rule gives of corrected spectra is another matter


@pytest.mark.parametrize("name", NODES)
def test_a_file_is_corrected_as_its_sample_was_and_a_sample_not_again(name, cohorts, tmp_path):
    cohort = cohorts[name]
    segmenter_of(cohort).save(tmp_path / "segmenter")
    segmenter = load_segmenter(tmp_path / "segmenter")
    raw = MemorySource(COUNT, SIZE, change=bands)
    info = raw.infos()[3]
    arrays = raw.read(info)
    np.save(tmp_path / "a.npy", arrays.image[..., ::-1])  # from the other end of the axis
    axis = replace(raw.channels(), values=raw.channels().values[::-1])
    new = NewImage("a", tmp_path / "a.npy", tissue=_mask(tmp_path, arrays.tissue))
    opened = new.open(Reading(axis=axis)).as_trained(segmenter)[0].with_tissue("nonzero").corrected(segmenter)
    part = (slice(2, 8), slice(1, 9))
    np.testing.assert_allclose(opened.image(part), cohort.image(info.name)[part], atol=1e-4)
    stored = NewImage(info.name, cohort.path, cohort=cohort).open().as_trained(segmenter)[0].corrected(segmenter)
    np.testing.assert_array_equal(stored.image(part), cohort.image(info.name)[part])
    segmenter.check(opened.shape)
    assert NODES[name]["_target_"].rpartition(".")[2] in segmenter.describe()


def _mask(folder: Path, tissue: np.ndarray) -> Path:
    Image.fromarray(tissue.astype(np.uint8) * 255).save(folder / "mask.png")
    return folder / "mask.png"


def test_cohorts_that_were_corrected_otherwise_are_refused(cohorts, tmp_path):
    raw = prepare(MemorySource(COUNT, SIZE, change=bands), tmp_path / "raw.zarr", splits=SPLITS, progress=False)
    for trained, other in (("emsc", "mie"), ("mie", None), (None, "emsc")):
        cohort, segmenter = (cohorts.get(name, raw) for name in (other, trained))
        with pytest.raises(CompsegError, match="not corrected as those that the segmenter was trained on"):
            Adaptation.of(cohort.channels, ("", 0.0), segmenter_of(segmenter), "here", cohort.input.corrections)


def test_preparing_again_finds_the_same_and_another_correction_is_another_cohort(cohorts):
    path = cohorts["emsc"].path
    assert (
        prepare(source_of("emsc"), path, splits=SPLITS, dtype="float32", progress=False).input == cohorts["emsc"].input
    )
    with pytest.raises(CompsegError, match="made with other provenance"):
        prepare(source_of("mie"), path, splits=SPLITS, dtype="float32", progress=False)
