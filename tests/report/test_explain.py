from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from compseg.evaluation.run import Mapped
from compseg.evaluation.thresholds import fixed
from compseg.plots.overlay import as_picture
from compseg.report.bands import bands_within
from compseg.report.explain import Inspector, importance, parts_of
from compseg.samples import Channels
from made_maps import by_hand

CHANNELS = Channels(4, (1700.0, 1500.0, 1300.0, 1100.0), "cm-1")


class Cohort(SimpleNamespace):
    """One image for every sample: channel 2 is 3 where disease is, all else 1."""

    def image(self, name):
        image = np.ones((2, 3, 4), np.float16)
        image[0, :, 2] = 3
        return image

    def thumbnail(self, name):
        return None

    def truth(self, name):
        return np.array([[True] * 3, [False] * 3])


def found(weights=(0.0, 0.0, 2.0, -1.0), label=1):
    model = nn.Conv2d(4, 1, 1, bias=False)
    model.weight.data = torch.tensor(weights).view(1, 4, 1, 1)
    segmenter = SimpleNamespace(
        model=model,
        pseudo_labels=None,
        channels=CHANNELS,
        network_input=lambda image, _: torch.from_numpy(image.astype(np.float32)).movedim(-1, 0)[None] * 2,
    )
    segmenter.parts = lambda: [segmenter]
    item = by_hand([[0.9] * 3, [0.1] * 3], truth=[[1] * 3, [0] * 3], label=label)
    cohort = Cohort(channels=CHANNELS)
    return SimpleNamespace(test=[item], infos=[item.info], segmenter=segmenter, cohort=cohort)


def inspected(found):
    inspect, (item,), image = Inspector(found, fixed(0.5)), found.test, found.cohort.image("s")
    return {item.info.name: inspect(Mapped(item, image, image, found.segmenter.network_input(image, item.tissue)))}


def test_what_is_seen_of_a_sample():
    seen = inspected(found())["s"]
    inside, outside, read_inside, read_outside = seen.spectra
    assert inside.tolist() == [1, 1, 3, 1]
    assert outside.tolist() == [1, 1, 1, 1]
    assert read_inside.tolist() == [2, 2, 6, 2]
    assert read_outside.tolist() == [2, 2, 2, 2]
    assert seen.picture.shape == (2, 3, 3)
    assert seen.cues["tissue area"] == 6
    assert [len(part) for part in seen.pixels] == [3, 3]


def test_importance_of_a_linear_model_is_weight_times_input():
    given = found()
    explained = importance(given, inspected(given))
    # Inside the network reads (2, 2, 6, 2).
    assert explained.gradient == pytest.approx([0, 0, 12, -2])
    assert explained.occlusion == pytest.approx([0, 0, 12, -2])
    assert explained.linear is None
    healthy = found(label=0)
    assert importance(healthy, inspected(healthy)) is None


def test_a_map_that_has_no_gradient_is_explained_by_hiding_alone():
    given = found()
    given.segmenter.model = lambda x: x.detach().sum(1, keepdim=True)
    explained = importance(given, inspected(given))
    assert explained.gradient is None
    assert explained.occlusion == pytest.approx([2, 2, 6, 2])


def test_importance_of_an_ensemble_is_the_mean_of_its_members():
    given, other = found(), found(weights=(2.0, 0.0, 0.0, 0.0)).segmenter
    own = given.segmenter.network_input
    given.segmenter.network_input = lambda *read: torch.cat([own(*read), 2 * own(*read)])
    given.segmenter.parts = lambda: [given.segmenter, other]
    seen = inspected(given)
    explained = importance(given, seen)
    assert explained.gradient == pytest.approx([4, 0, 6, -1])
    assert explained.occlusion == pytest.approx([4, 0, 6, -1])
    assert seen["s"].spectra[2].tolist() == [3, 3, 9, 3]


@pytest.mark.parametrize("channels", [1, 3, 16, 450])
def test_parts_cover_an_axis_once(channels):
    parts = parts_of(channels)
    assert len(parts) == min(channels, 16)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(channels))


def test_bands_are_those_of_an_infrared_axis():
    assert [position for position, _ in bands_within(CHANNELS)] == [1654, 1546, 1455, 1400, 1338, 1240, 1170, 1150]
    assert bands_within(Channels(2, (400.0, 2000.0), "nm")) == []
    assert bands_within(Channels(3)) == []


def test_pictures_of_photographs_stay_as_they_are_and_spectra_get_false_colour():
    tissue = np.ones((2, 2), bool)
    grey = np.array([[[0], [100]], [[200], [255]]], np.float16)
    assert as_picture(grey, Channels(1, names=("grey",)), tissue)[..., 1].tolist() == [[0, 100], [200, 255]]
    colour = np.random.default_rng(0).integers(0, 256, (2, 2, 3)).astype(np.float16)
    assert (as_picture(colour, Channels(3, names=("red", "green", "blue")), tissue) == colour).all()
    cube = np.zeros((2, 2, 6), np.float16)
    cube[0, 0, 4:] = 1
    assert as_picture(cube, Channels(6, tuple(range(1, 7)), "nm"), tissue)[0, 0].tolist() == [0, 0, 255]
    assert as_picture(np.zeros((2, 2, 5), np.float16), Channels(5), tissue).shape == (2, 2, 3)
    deep = np.array([[[0], [30000]], [[40000], [65000]]], np.float32)
    assert as_picture(deep, Channels(1, names=("grey",)), tissue)[1, 1].tolist() == [255] * 3
