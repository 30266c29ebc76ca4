from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from compseg.errors import CompsegError
from compseg.models import SegNet, SpectralSpatial, SpectralStem, UNet, blocks
from compseg.models.blocks import ACTIVATIONS, NORMS, Conv, make_activation, make_norm, move_start

OWN = (UNet, SegNet, SpectralSpatial)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs(name: str):
    x = torch.linspace(-3, 3, 7)
    assert torch.equal(make_activation(name)(x), getattr(functional, name)(x))


@torch.no_grad()
def test_norms_are_what_their_names_say():
    x = torch.randn(3, 16, 5, 6)
    references = {
        "none": x,
        "batch": functional.batch_norm(x, None, None, training=True),
        "group": functional.group_norm(x, 8),
        "instance": functional.instance_norm(x),
        "pixel": (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt(),
    }
    assert set(references) == set(NORMS)
    for name, reference in references.items():
        torch.testing.assert_close(make_norm(name, 16)(x), reference, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (12, 4), (9, 1), (5, 1)])
def test_group_norm_takes_any_width(channels: int, groups: int):
    assert make_norm("group", channels).num_groups == groups


@pytest.mark.parametrize("network", OWN)
@pytest.mark.parametrize("norm", NORMS)
def test_no_bias_before_a_norm(network: type[nn.Module], norm: str):
    net = network(3, width=8, norm=norm)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m is not net.output]
    assert convolutions
    assert all((m.bias is None) == (norm != "none") for m in convolutions)


@pytest.mark.parametrize("network", OWN)
@pytest.mark.parametrize("prior", [0.05, 0.5, 0.9])
@torch.no_grad()
def test_starts_near_the_prior(network: type[nn.Module], prior: float):
    torch.manual_seed(0)
    activation = network(8, width=16, prior=prior).eval()(torch.randn(2, 8, 64, 64)).sigmoid()
    # The small output weights still add a little, most where SoftPlus features are all positive: half a logit at most.
    assert (activation.logit() - math.log(prior / (1 - prior))).abs().max() < 0.75
    assert activation.mean() == pytest.approx(prior, abs=0.1)


@pytest.mark.parametrize("network", OWN)
@torch.no_grad()
def test_a_start_that_is_moved_is_that_of_a_network_made_with_it(network: type[nn.Module]):
    """Also behind a stem; and `auto` is a half until it is moved."""
    made = []
    for prior in (0.002, "auto", 0.5):
        torch.manual_seed(0)
        made.append(SpectralStem(8, network(4, width=16, prior=prior), components=4))
    low, moved, half = made
    assert all(torch.equal(one, other) for one, other in zip(moved.parameters(), half.parameters(), strict=True))
    move_start(moved, 0.002)
    assert all(torch.equal(one, other) for one, other in zip(moved.parameters(), low.parameters(), strict=True))
    assert moved.net.output.bias.sigmoid().item() == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("network", "name", "layer", "inputs"),
    [
        (UNet, "3x3", lambda net: net.encoder[3][1][0], 9 * 256),
        (UNet, "transposed", lambda net: net.up[2], 256),
        (SegNet, "3x3", lambda net: net.decoder[3][0][0], 9 * 256),
        (SpectralSpatial, "1x1", lambda net: net.spectral[0][0], 450),
    ],
)
def test_weights_are_drawn_as_the_unet_paper_says(network: type[nn.Module], name: str, layer, inputs: int):
    torch.manual_seed(0)
    net = network(450, width=64 if network is SpectralSpatial else 32)
    weight = layer(net).weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 * math.sqrt(2 / inputs) * 3)


@pytest.mark.parametrize("network", OWN)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("in_channels", 0),
        ("out_channels", 0),
        ("width", 0),
        ("activation", "sofplus"),
        ("norm", "layer"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("prior", 0.0),
        ("prior", 1.0),
    ],
)
def test_a_bad_argument_is_named(network: type[nn.Module], argument: str, value: object):
    with pytest.raises(CompsegError, match=rf"^{argument}: expected .*; got {value!r}$"):
        network(**{"in_channels": 3, "width": 4, argument: value})


@pytest.mark.parametrize("network", OWN)
def test_dropout_drops_channels_in_training_alone(network: type[nn.Module]):
    net, x = network(3, width=8, dropout=0.5), torch.randn(1, 3, 64, 64)
    dropped: list[torch.Tensor] = []
    net.dropout.register_forward_hook(lambda _module, _inputs, output: dropped.append(output))
    assert not torch.equal(net.train()(x), net(x))
    silent = (dropped[0] == 0).flatten(2).all(2)
    assert silent.any()
    assert not silent.all()
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("inputs", [1, 10, 16])
def test_channels_are_filled_up_by_nothing_that_counts(monkeypatch, inputs: int):
    """As on a GPU in half precision, here in double, where only an error would differ."""
    monkeypatch.setattr(blocks, "half_precision", lambda x: x.dtype)
    filled, plain = (kind(inputs, 4, 3, padding=1).double() for kind in (Conv, nn.Conv2d))
    plain.load_state_dict(filled.state_dict())
    x = torch.randn(2, inputs, 7, 6, dtype=torch.float64)
    results = []
    for net in (filled, plain):
        given = x.clone().requires_grad_()
        output = net(given)
        output.square().sum().backward()
        results.append([output, given.grad, net.weight.grad, net.bias.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_on_a_processor_nothing_is_filled_up():
    with torch.autocast("cpu", torch.bfloat16):
        assert blocks.half_precision(torch.zeros(1)) is None
