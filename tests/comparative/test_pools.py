"""Every pool against an independent numpy computation, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp, softmax
from scipy.stats import gmean

from compseg.comparative import (
    AttentionPool,
    ComparativeHead,
    GeneralizedMeanPool,
    Identity,
    LogitMeanPool,
    LogSumExpPool,
    MaxPool,
    MeanPool,
    NoisyAndPool,
    NoisyOrPool,
    RankPool,
    SigmaHead,
    TopKPool,
)
from compseg.errors import CompsegError


def rank_reference(a, rho):
    weights = (1 - 1 / (rho * len(a))) ** np.arange(len(a))
    return np.average(np.sort(a)[::-1], weights=weights)


def topk_reference(z, share, lowest):
    k = max(1, round(share * len(z)))
    z = np.sort(z)
    return expit((z[-k:].mean() + lowest * z[:k].mean()) / 2)


def noisy_and_reference(a, slope, b):
    low, here, high = expit(slope * (np.array([0, a.mean(), 1]) - b))
    return (here - low) / (high - low)


# Name, pool, reference from the tissue's logits z (map 0) and u (map 1).
CASES = {
    "mean": (MeanPool(), lambda z, _: expit(z).mean()),
    "max": (MaxPool(), lambda z, _: expit(z).max()),
    "lse": (LogSumExpPool(3.0), lambda z, _: expit((logsumexp(3 * z) - np.log(len(z))) / 3)),
    "logit_mean": (LogitMeanPool(), lambda z, _: expit(z.mean())),
    "noisy_or": (NoisyOrPool(2.0), lambda z, _: 1 - gmean(1 - expit(z)) ** 2),
    "noisy_and": (NoisyAndPool(10.0, 0.4), lambda z, _: noisy_and_reference(expit(z), 10, 0.4)),
    "gwrp": (RankPool(0.3), lambda z, _: rank_reference(expit(z), 0.3)),
    "generalized_mean": (GeneralizedMeanPool(4.0), lambda z, _: np.mean(expit(z) ** 4) ** 0.25),
    "topk": (TopKPool(0.2, 0.7), lambda z, _: topk_reference(z, 0.2, 0.7)),
    "attention": (AttentionPool(), lambda z, u: expit(softmax(u) @ z)),
}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 2, 9, 7, generator=generator, dtype=torch.float64)
    tissue = torch.rand(4, 1, 9, 7, generator=generator) < torch.tensor([0.2, 0.5, 0.9, 1.0]).view(-1, 1, 1, 1)
    return logits, tissue


@pytest.mark.parametrize("name", CASES)
def test_pool_against_numpy(name, batch):
    pool, reference = CASES[name]
    logits, tissue = batch
    expected = [reference(*z.numpy()[:, m[0].numpy()]) for z, m in zip(logits, tissue, strict=True)]
    np.testing.assert_allclose(pool(logits, tissue).detach().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_pool_gradient_against_finite_differences(name, batch):
    pool, (logits, tissue) = CASES[name][0], batch
    logits = logits[:, :, :4, :4].clone().requires_grad_()
    tissue = tissue[..., :4, :4].clone()
    tissue[0] = False  # a sample without tissue among them
    assert torch.autograd.gradcheck(lambda z: pool.double()(z, tissue), (logits,))


@pytest.mark.parametrize("name", CASES)
def test_saturated_logits_stay_finite_and_in_range(name):
    pool = CASES[name][0].float()
    for level in (-6e4, -100.0, 0.0, 100.0, 6e4):
        logits = torch.full((1, 2, 4, 4), level, requires_grad=True)
        x = pool(logits, torch.ones(1, 1, 4, 4, dtype=torch.bool))
        x.sum().backward()
        assert 0 <= x.item() <= 1
        assert torch.isfinite(logits.grad).all()


def test_limits_between_mean_and_maximum(batch):
    logits, tissue = batch
    mean, top = MeanPool()(logits, tissue), MaxPool()(logits, tissue)
    torch.testing.assert_close(GeneralizedMeanPool(1.0)(logits, tissue), mean)
    torch.testing.assert_close(RankPool(1e6)(logits, tissue), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(RankPool(1e-6)(logits, tissue), top, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(LogSumExpPool(1e3)(logits, tissue), top, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(GeneralizedMeanPool(1e3)(logits, tissue), top, rtol=1e-2, atol=1e-2)


def test_noisy_or_of_every_pixel_is_the_published_product(batch):
    logits, _ = batch
    tissue = torch.ones(4, 1, 9, 7, dtype=torch.bool)
    published = 1 - (1 - torch.sigmoid(logits[:, 0])).flatten(1).prod(1)
    torch.testing.assert_close(NoisyOrPool(63)(logits, tissue), published)


def test_noisy_or_does_not_drown_in_pixels():
    logits, tissue = torch.full((1, 1, 256, 256), -6.9), torch.ones(1, 1, 256, 256, dtype=torch.bool)
    assert NoisyOrPool()(logits, tissue).item() == pytest.approx(1 - (1 - expit(-6.9)) ** 4, rel=1e-4)


def test_rank_pool_at_the_decay_and_size_of_its_source():
    """SEC's d = 0.996 on a 41 x 41 map is rho = 250 / 1681."""
    logits = torch.randn(1, 1, 41, 41, generator=torch.Generator().manual_seed(1))
    a = np.sort(expit(logits.double().numpy().ravel()))[::-1]
    expected = sum(0.996**j * value for j, value in enumerate(a)) / sum(0.996**j for j in range(1681))
    x = RankPool(250 / 1681)(logits, torch.ones(1, 1, 41, 41, dtype=torch.bool))
    assert x.item() == pytest.approx(expected, rel=1e-4)


def test_noisy_and_learns_its_threshold(batch):
    pool = NoisyAndPool().double()
    pool(*batch).sum().backward()
    assert pool.threshold.grad.item() < 0  # a higher threshold, a lower x


def test_pool_of_the_head_may_be_another(batch):
    logits, tissue = batch
    out = SigmaHead(pool=MaxPool())(logits, tissue)
    torch.testing.assert_close(out.x, MaxPool()(logits.float(), tissue))


def test_head_computes_in_float32_under_autocast(batch):
    logits, tissue = batch
    with torch.autocast("cpu", torch.bfloat16):
        out = SigmaHead()(logits.bfloat16(), tissue)
    plain = SigmaHead()(logits.bfloat16().float(), tissue)
    assert {out.logits.dtype, out.activation.dtype, out.x.dtype, out.o.dtype} == {torch.float32}
    assert torch.equal(out.o, plain.o)


@pytest.mark.parametrize("tissue", [torch.ones(2, 4, 4, dtype=torch.bool), torch.ones(2, 1, 4, 4)])
def test_head_refuses_a_mask_that_does_not_fit(tissue):
    with pytest.raises(ValueError, match=r"tissue: expected torch.bool \(2, 1, 4, 4\)"):
        SigmaHead()(torch.zeros(2, 1, 4, 4), tissue)


def test_attention_asks_for_a_second_map():
    head = ComparativeHead(AttentionPool(), Identity())
    with pytest.raises(CompsegError, match=r"^method\.maps: attention expected 2"):
        head(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: LogSumExpPool(0), "head.pool.r"),
        (lambda: GeneralizedMeanPool(-1), "head.pool.r"),
        (lambda: NoisyOrPool(0), "head.pool.regions"),
        (lambda: NoisyAndPool(0), "head.pool.slope"),
        (lambda: RankPool(0), "head.pool.rho"),
        (lambda: TopKPool(0), "head.pool.share"),
        (lambda: TopKPool(lowest=-1), "head.pool.lowest"),
    ],
)
def test_values_out_of_range_are_refused(make, key):
    with pytest.raises(CompsegError, match=f"^{key}: expected .* got"):
        make()
