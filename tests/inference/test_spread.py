"""How far activations differ between views, or between the members of an ensemble; in tiles as in one piece."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from compseg.evaluation.thresholds import fixed
from compseg.inference import Segmenter
from compseg.inference.ensemble import Ensemble
from compseg.inference.images import new_images
from compseg.inference.prediction import predict
from compseg.inference.spread import spread_of
from compseg.models import UNet
from compseg.preprocessing import Preprocess
from compseg.samples import Channels

IMAGE = np.random.default_rng(0).normal(size=(5, 7, 1)).astype(np.float32)
GIVEN = torch.from_numpy(IMAGE).movedim(-1, 0)[None]
TISSUE = np.ones(IMAGE.shape[:2], bool)


def by_weights(weights):
    net = nn.Conv2d(1, 1, np.shape(weights), padding="same", bias=False)
    net.weight.data = torch.tensor(weights, dtype=torch.float32)[None, None]
    return SimpleNamespace(
        parts=lambda: [None],
        logits_of=lambda given, _: net(given).detach(),
    )


@pytest.mark.parametrize("weights", [[[2.0]], [[0, 1, 0], [1, 2, 1], [0, 1, 0]]])
def test_a_network_without_direction_is_sure(weights):
    assert spread_of(by_weights(weights), GIVEN, TISSUE).max() < 1e-6


def test_spread_is_that_over_all_eight_views():
    tissue = TISSUE.copy()
    tissue[0] = False
    # Each pixel shows its right neighbour: over the views every neighbour of the four, twice.
    found = spread_of(by_weights([[0, 0, 0], [0, 0, 1], [0, 0, 0]]), GIVEN, tissue)
    padded = np.pad(IMAGE[..., 0], 1)
    four = [padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1]]
    wanted = np.std(1 / (1 + np.exp(-np.array(four))), axis=0)
    assert found[1:] == pytest.approx(wanted[1:], abs=1e-6)
    assert not found[0].any()


def unet(seed):
    torch.manual_seed(seed)
    net = UNet(3, width=4, depth=2, norm="batch")
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)
    return Segmenter(net, Preprocess(3), {}, {}, Channels(3), "all", "float32", fixed(0.5))


@pytest.fixture
def cube(tmp_path):
    image = np.random.default_rng(0).random((96, 72, 3)).astype("f4")
    np.save(tmp_path / "one.npy", image)
    return image


def predicted(segmenter, folder, **options):
    """The spread and the row of the table that a prediction leaves."""
    predict(segmenter, new_images(folder / "one.npy"), folder / "maps", uncertainty=True, **options)
    with (folder / "maps/areas.csv").open() as file:
        (row,) = csv.DictReader(file)
    return np.load(folder / "maps/maps/one_spread.npy"), row


def test_in_tiles_it_is_that_of_the_whole(cube, tmp_path):
    one, tissue = unet(0), np.ones(cube.shape[:2], bool)
    whole = spread_of(one, one.network_input(cube, tissue), tissue)
    found, row = predicted(one, tmp_path, tile=80)
    assert len(one.tiles(cube.shape, 80)) > 1
    assert whole.max() > 0.01
    assert np.abs(found - whole).max() < 1e-5
    assert float(row["mean_spread"]) == pytest.approx(whole.mean(), abs=1e-5)


def test_members_of_an_ensemble_are_what_differs(cube, tmp_path):
    members = [unet(seed) for seed in range(3)]
    found, _ = predicted(Ensemble(members), tmp_path, tile=80)
    assert np.abs(found - np.std([each(cube) for each in members], axis=0)).max() < 1e-5
    assert found.max() > 0.01
