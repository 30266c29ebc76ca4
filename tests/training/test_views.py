"""Second looks at a batch: turns that are undone, and an average that follows the segmenter and survives a restart."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.special import expit
from torch import nn
from torch.utils.data import DataLoader

from compseg.batches import FlipRotate
from compseg.comparative import (
    Entropy,
    FlipConsistency,
    MeanTeacher,
    PixelBCE,
    RotationConsistency,
    SigmaHead,
    SpectralCRF,
    Sum,
)
from compseg.preprocessing import Preprocess
from compseg.training import CompSegNet
from compseg.training.views import WAYS, Views, activation_of_rotated, sampled_rotations


def net(seed=0):
    """Weighs a pixel's neighbours unlike one another, so that a turn matters; batch norm has buffers of its own."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


def images(count=4, height=6, width=6, seed=1):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("turn", [FlipRotate(False, 0), *WAYS])
def test_a_turn_is_numpys_and_undone(turn):
    picture = images()[0]
    expected = picture.numpy()[..., ::-1] if turn.flip else picture.numpy()
    expected = np.rot90(expected, turn.quarter, axes=(-2, -1))
    np.testing.assert_array_equal(turn(picture), expected)
    assert torch.equal(turn.back(turn(picture)), picture)


def test_the_map_of_the_turned_image_is_turned_back():
    segmenter, image = net().eval(), images()
    turns = sampled_rotations(image, [3, 1, 4, 5], seed=9, epoch=2)
    seen = activation_of_rotated(segmenter, image, turns)
    for turn, picture, found in zip(turns, image, seen, strict=True):
        rotated = np.rot90(picture.numpy()[..., ::-1] if turn.flip else picture, turn.quarter, axes=(-2, -1)).copy()
        logits = segmenter(torch.from_numpy(rotated)[None])[0].detach().numpy()
        back = np.rot90(logits, -turn.quarter, axes=(-2, -1))
        np.testing.assert_allclose(found.detach(), expit(back[..., ::-1] if turn.flip else back), rtol=1e-5)
    assert not torch.allclose(seen, torch.sigmoid(segmenter(image)), atol=1e-3)
    by_pixel = nn.Conv2d(3, 1, 1)
    torch.testing.assert_close(activation_of_rotated(by_pixel, image, turns), torch.sigmoid(by_pixel(image)))


def test_every_way_but_as_it_lies_is_drawn_and_follows_the_sample():
    index = list(range(300))
    turns = sampled_rotations(torch.zeros(300, 1, 4, 4), index, seed=0, epoch=0)
    assert set(turns) == set(WAYS)
    assert FlipRotate(False, 0) not in turns
    assert sampled_rotations(torch.zeros(2, 1, 4, 4), [7, 3], seed=0, epoch=0) == [turns[7], turns[3]]
    assert sampled_rotations(torch.zeros(300, 1, 4, 4), index, seed=0, epoch=1) != turns
    assert {turn.quarter for turn in sampled_rotations(torch.zeros(300, 1, 4, 5), index, seed=0, epoch=0)} == {0, 2}


def test_only_what_is_read_is_looked_at():
    def never(image):
        raise AssertionError

    assert Views(net(), Entropy())(never, images(), [0, 1, 2, 3], 0) == {}
    found = Views(net(), Sum({"a": Entropy(), "b": SpectralCRF()}))(never, images(), [0, 1, 2, 3], 0)
    assert list(found) == ["image"]
    assert found["image"].equal(images())


def test_gradient_runs_through_the_turned_look_and_not_through_the_average():
    segmenter = net()
    views = Views(segmenter, Sum({"turn": RotationConsistency(), "ema": MeanTeacher()}))
    found = views(segmenter, images(), [0, 1, 2, 3], 0)
    assert set(found) == {"rotated", "ema"}
    assert found["rotated"].requires_grad
    assert not found["ema"].requires_grad
    assert not any(parameter.requires_grad for parameter in views.parameters())


def test_a_flipped_look_is_of_flips_alone():
    def brightest_row(image):
        """Not the same for a picture on its side."""
        return image.mean(-1, keepdim=True).expand_as(image)

    upright = torch.arange(6.0)[:, None].expand(40, 1, 6, 6)
    found = Views(net(), FlipConsistency())(brightest_row, upright, range(40), 0)
    torch.testing.assert_close(found["flipped"], torch.sigmoid(upright))
    rotated = Views(net(), RotationConsistency())(brightest_row, upright, range(40), 0)["rotated"]
    assert not torch.allclose(rotated, torch.sigmoid(upright))


def test_the_average_is_the_recursion_of_its_source():
    segmenter, mu = net(), 0.7
    views = Views(segmenter, MeanTeacher(mu))
    expected = None
    for step in range(5):
        with torch.no_grad():
            for parameter in segmenter.parameters():
                parameter.add_(torch.randn_like(parameter))
        segmenter[1].running_mean.fill_(step)
        views.follow(segmenter)
        now = nn.utils.parameters_to_vector(segmenter.parameters()).detach().double().numpy()
        expected = now if expected is None else mu * expected + (1 - mu) * now
    found = nn.utils.parameters_to_vector(views.ema.parameters())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (views.ema.module[1].running_mean == 4).all()


def module():
    objective = Sum({"objective": PixelBCE(), "mean_teacher": MeanTeacher(0.9), "flip_rotate90": RotationConsistency()})
    optimizer = partial(torch.optim.AdamW, lr=0.05)
    return CompSegNet(net(), SigmaHead(), objective, Preprocess(3), optimizer=optimizer, seed=3)


def batches():
    for start in (0, 4):
        image = images(seed=start)
        label = torch.tensor([0.0, 1.0, 0.0, 1.0])
        tissue = torch.ones(4, 1, 6, 6, dtype=torch.bool)
        yield {"image": image, "tissue": tissue, "label": label, "index": [start + i for i in range(4)]}


def fit(epochs, checkpoint=None):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    trained = module()
    loaders = [DataLoader(list(batches()), batch_size=None) for _ in range(2)]
    trainer.fit(trained, *loaders, ckpt_path=checkpoint, weights_only=True)
    return trained, trainer


def test_the_average_trains_along_and_survives_a_restart(tmp_path):
    whole, _ = fit(4)
    _, broken = fit(2)
    broken.save_checkpoint(tmp_path / "broken.ckpt")
    resumed, _ = fit(4, tmp_path / "broken.ckpt")
    assert int(whole.views.ema.n_averaged) == 8
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
    apart = whole.views.ema.module[0].weight - whole.segmenter[0].weight
    assert 0 < apart.abs().max() < 1
    trained = [p for group in broken.optimizers[0].param_groups for p in group["params"]]
    assert len(trained) == len(list(net().parameters()))
