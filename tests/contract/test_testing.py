"""The public contract checks: what keeps the contract passes, and what breaks it is told in a sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compseg.comparative import MaxPool, MeanPool, Objective, PooledLoss
from compseg.models import SpectralSpatial, UNet
from compseg.testing import check_objective, check_pool, check_segmenter


class Net(nn.Module):
    """A segmenter that keeps the contract, to be broken."""

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(4, maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


class Halving(Net):
    def forward(self, x):
        return super().forward(x)[..., ::2, ::2]


class Fixed(Net):
    def forward(self, x):
        return torch.zeros_like(super().forward(x))


class OnlyEven(Net):
    def forward(self, x):
        size = [side // 2 for side in x.shape[-2:]]
        return nn.functional.interpolate(super().forward(x), size=[2 * side for side in size])


class Idle(Net):
    def __init__(self, channels, maps):
        super().__init__(channels, maps)
        self.idle = nn.Parameter(torch.zeros(1))


class Flat(Net):
    def forward(self, x):
        return super().forward(x) + 0 * self.first.weight.sum() + 0 * self.last(self.first(x))


class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.randn(1)


class OverTheBatch(Net):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True) / 2)


class Forgetful(Net):
    def __init__(self, channels, maps):
        super().__init__(channels, maps)
        self.scale = torch.rand(1)

    def forward(self, x):
        return self.scale * super().forward(x)


class Undecided(Net):
    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else super().forward(2 * x)


SEGMENTERS = {
    Halving: "has to give float32 logits",
    Fixed: "depend on the image",
    OnlyEven: r"an image of 37 x 53 has to give a map of that size, not \(1, 1, 36, 52\)",
    Idle: "idle gets no gradient",
    Noisy: "the same image has to give the same logits each time",
    OverTheBatch: "must not depend on the other samples of its batch",
    Forgetful: "a network given another's state dict has to give its maps",
}


@pytest.mark.parametrize("make", [Net, UNet, SpectralSpatial, Flat])
def test_a_segmenter_that_keeps_the_contract(make):
    check_segmenter(make if make in (Net, Flat) else lambda channels, maps: make(channels, maps, width=8))


@pytest.mark.parametrize("make", SEGMENTERS)
def test_a_segmenter_that_breaks_it(make):
    with pytest.raises(AssertionError, match=SEGMENTERS[make]):
        check_segmenter(make)


def test_a_segmenter_that_cannot_be_exported():
    with pytest.raises(Exception, match=r"(?i)data-dependent|guard|control"):
        check_segmenter(Undecided)


class Pool(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        return self.function(logits, tissue)


def mean(logits, tissue):
    return MeanPool()(logits, tissue)


POOLS = {
    "a pixel each": (lambda z, m: torch.sigmoid(z[:, 0]) * m[:, 0], "one float32 number per sample"),
    "half precision": (lambda z, m: mean(z, m).half(), "one float32 number per sample"),
    "beyond one": (lambda z, m: 5 * mean(z, m), "a fraction, from 0 to 1"),
    "none is something": (lambda z, m: mean(z, m).clamp_min(0.1), "a sample without tissue has to give 0"),
    "nothing": (lambda z, m: 0 * mean(z, m), "a sample with tissue has to give more than 0"),
    "downwards": (lambda z, m: mean(-z, m), "a higher activation of map 0 has to raise x"),
    "another map": (lambda z, m: mean(z[:, 1:], m), "a higher activation of map 0 has to raise x"),
    "not up to one": (lambda z, m: 0.5 * mean(z, m), "1 everywhere has to give x = 1"),
    "off tissue": (
        lambda z, m: 0.9 * mean(z, m) + 0.1 * m.any(3).any(2)[:, 0] * z[:, 0].sigmoid().mean((1, 2)),
        "off tissue",
    ),
    "by place": (
        lambda z, m: mean(z, m) ** (1 + (m[:, 0, 0].float().mean(1))),
        "must not depend on where pixels are",
    ),
    "by batch": (lambda z, m: mean(z, m) ** (1 + len(z) / 4), "the other samples of its batch"),
}


@pytest.mark.parametrize("pool", [MeanPool(), MaxPool()], ids=["mean", "max"])
def test_a_pool_that_keeps_the_contract(pool):
    check_pool(pool)


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_that_breaks_it(name):
    function, sentence = POOLS[name]
    with pytest.raises(AssertionError, match=sentence):
        check_pool(Pool(function))


class Loss(Objective):
    """The squared error of o, one number per sample, to be broken."""

    def statistics(self, out, labels, truth=None):
        return (out.o - labels).square()[:, None]


class Scalar(Loss):
    def statistics(self, out, labels, truth=None):
        return super().statistics(out, labels)[:, 0]


class Unrounded(Loss):
    def forward(self, out, labels, truth=None):
        return super().forward(out, labels).sqrt()


class Overflowing(Loss):
    def statistics(self, out, labels, truth=None):
        return super().statistics(out, labels) + (out.logits.exp().mean((1, 2, 3))[:, None]).sqrt()


class Blind(Loss):
    def statistics(self, out, labels, truth=None):
        return (out.o.detach() - labels).square()[:, None] + 0 * out.logits[:, 1].mean((1, 2))[:, None]


class TwoClasses(Loss):
    def statistics(self, out, labels, truth=None):
        return super().statistics(out, labels) / labels.std()


class Compared(Loss):
    def statistics(self, out, labels, truth=None):
        return (out.o - out.o.mean() - labels).square()[:, None]


class Oriented(Loss):
    def statistics(self, out, labels, truth=None):
        return super().statistics(out, labels) + out.activation[:, 0, 0].mean(1)[:, None]


OBJECTIVES = {
    Scalar: "`columns` numbers per sample",
    Unrounded: r"finish\(mean of statistics\)",
    Overflowing: "the gradient has to be finite",
    Blind: "map 0, the disease map, has to get a gradient",
    TwoClasses: "a batch whose labels are all 0",
    Compared: "must not depend on the other samples",
    Oriented: "rotating an image",
}


@pytest.mark.parametrize("objective", [Loss(), PooledLoss()], ids=["squared", "pooled"])
def test_an_objective_that_keeps_the_contract(objective):
    check_objective(objective)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_an_objective_that_breaks_it(kind):
    with pytest.raises(AssertionError, match=OBJECTIVES[kind]):
        check_objective(kind())
