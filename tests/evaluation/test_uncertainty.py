from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from compseg.evaluation.thresholds import fixed
from compseg.evaluation.uncertainty import errors_by_spread, spread_of
from made_maps import by_hand


def segmenter(weights):
    net = nn.Conv2d(1, 1, np.shape(weights), padding="same", bias=False)
    net.weight.data = torch.tensor(weights, dtype=torch.float32)[None, None]
    return SimpleNamespace(
        network_input=lambda image, _: torch.from_numpy(image).movedim(-1, 0)[None],
        logits_of=lambda given: net(given).detach(),
    )


IMAGE = np.random.default_rng(0).normal(size=(5, 7, 1)).astype(np.float32)


def test_a_network_without_direction_is_sure():
    tissue = np.ones(IMAGE.shape[:2], bool)
    assert spread_of(segmenter([[2.0]]), IMAGE, tissue).max() < 1e-6
    symmetric = [[0, 1, 0], [1, 2, 1], [0, 1, 0]]
    assert spread_of(segmenter(symmetric), IMAGE, tissue).max() < 1e-6


def test_spread_is_that_over_all_eight_views():
    tissue = np.ones(IMAGE.shape[:2], bool)
    tissue[0] = False
    # Each pixel shows its right neighbour: over the views every neighbour of the four, twice.
    found = spread_of(segmenter([[0, 0, 0], [0, 0, 1], [0, 0, 0]]), IMAGE, tissue)
    padded = np.pad(IMAGE[..., 0], 1)
    four = [padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1]]
    wanted = np.std(1 / (1 + np.exp(-np.array(four))), axis=0)
    assert found[1:] == pytest.approx(wanted[1:], abs=1e-6)
    assert not found[0].any()


def test_errors_are_counted_where_spread_is_low_and_where_it_is_high():
    truth = [1] * 8 + [0] * 8
    item = by_hand([0.9] * 4 + [0.1] * 4 + [0.1] * 8, truth=truth)
    spread = np.array([[0.1] * 4 + [0.3] * 4 + [0.2] * 8], np.float32)
    found = errors_by_spread([(item, spread)], fixed(0.5))
    assert sum(found["pixels"]) == 16
    assert found["wrong"] == [0] * 6 + [1] * 2
    assert found["spread"] == sorted(found["spread"])
    assert errors_by_spread([], fixed(0.5)) is None
