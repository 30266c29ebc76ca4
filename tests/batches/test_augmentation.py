from __future__ import annotations

import numpy as np
import pytest
import torch

from compseg.batches.augmentation import RandomFlipRotate90, RandomHorizontalFlip, SpectralJitter, augment
from compseg.errors import CompsegError


def batch_of(height: int = 6, width: int = 6) -> dict:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(4, 3, height, width, generator=generator)
    return {
        "image": image,
        "tissue": image[:, :1] > 0.2,
        "truth": image[:, 1:2] > 0.7,
        "label": torch.tensor([0.0, 1.0, 0.0, 1.0]),
        "index": [5, 2, 9, 7],
    }


def test_image_and_masks_move_together():
    rotated = augment(batch_of(), {"flip_rotate90": RandomFlipRotate90()}, seed=1, epoch=3)
    assert torch.equal(rotated["tissue"], rotated["image"][:, :1] > 0.2)
    assert torch.equal(rotated["truth"], rotated["image"][:, 1:2] > 0.7)
    assert not torch.equal(rotated["image"], batch_of()["image"])
    assert torch.equal(rotated["image"].flatten(2).sort().values, batch_of()["image"].flatten(2).sort().values)


def test_all_eight_ways_come_up_and_four_for_a_rectangle():
    picture = torch.arange(6.0).reshape(1, 2, 3)
    square = torch.arange(4.0).reshape(1, 2, 2)

    def draw(p):
        return {
            tuple(RandomFlipRotate90()({"image": p}, np.random.default_rng(k))["image"].flatten().tolist())
            for k in range(200)
        }

    assert len(draw(square)) == 8
    assert len(draw(picture)) == 4


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        ("flips", {"abc/def", "cba/fed", "def/abc", "fed/cba"}),
        ("left_right", {"abc/def", "cba/fed"}),
        ("up_down", {"abc/def", "def/abc"}),
        ("none", {"abc/def"}),
    ],
)
def test_only_the_ways_that_were_asked_for(ways, expected):
    square = torch.arange(9.0).reshape(1, 3, 3)[:, :2]
    letters = {
        "/".join("".join("abcdef"[int(value)] for value in row) for row in moved[0])
        for moved in (
            RandomFlipRotate90(ways)({"image": square}, np.random.default_rng(k))["image"] for k in range(200)
        )
    }
    assert letters == expected


def test_left_and_right_by_either_class_are_the_same():
    one = augment(batch_of(), {"flip": RandomHorizontalFlip()}, seed=1, epoch=3)
    other = augment(batch_of(), {"flip_rotate": RandomFlipRotate90("left_right")}, seed=1, epoch=3)
    assert torch.equal(one["image"], other["image"])


def test_other_ways_are_refused():
    with pytest.raises(CompsegError, match="ways=auto: expected one of all, flips, left_right, up_down, none"):
        RandomFlipRotate90("auto")


def test_a_horizontal_flip_leaves_up_where_it_is():
    picture = torch.arange(6.0).reshape(1, 2, 3)
    drawn = {
        tuple(RandomHorizontalFlip()({"image": picture}, np.random.default_rng(k))["image"].flatten().tolist())
        for k in range(50)
    }
    assert drawn == {(0, 1, 2, 3, 4, 5), (2, 1, 0, 5, 4, 3)}


def test_a_sample_depends_on_its_own_number_and_not_on_its_neighbours():
    both = {"flip_rotate90": RandomFlipRotate90(), "jitter": SpectralJitter()}
    whole = augment(batch_of(), both, seed=1, epoch=2)
    alone = {name: value[2:3] for name, value in batch_of().items()}
    assert torch.equal(augment(alone, both, seed=1, epoch=2)["image"][0], whole["image"][2])
    assert not torch.equal(augment(batch_of(), both, seed=1, epoch=3)["image"], whole["image"])


def test_jitter_is_one_smooth_curve_for_the_whole_sample():
    image = torch.rand(64, 5, 5)
    pictures = {"image": image, "tissue": torch.ones(1, 5, 5, dtype=torch.bool)}
    out = SpectralJitter(baseline=0.5, gain=0.0)(pictures, np.random.default_rng(0))["image"]
    added = out - image
    assert torch.allclose(added, added[:, :1, :1].expand_as(added), atol=1e-6)
    curve = added[:, 0, 0].numpy()
    fitted = np.polynomial.polynomial.Polynomial.fit(np.arange(64), curve, 3)(np.arange(64))
    np.testing.assert_allclose(curve, fitted, atol=1e-5)
    assert np.ptp(curve) > 0.01


def test_nothing_configured_changes_nothing():
    batch = batch_of()
    assert augment(batch, {}, seed=0, epoch=0) is batch
