"""Pseudo-labels by small networks on frozen features: what they mark, and what they must not be fooled by."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy

from compseg.comparative import EncoderPseudoLabels, PseudoLabels
from compseg.comparative.pseudo_labels import encoder as room
from compseg.training.fit import FOUND

SIDE, COUNT = 32, 64


class Means(nn.Module):
    """Features without an encoder: the channels' means over squares of 4 pixels."""

    dimensions, knows = 3, True

    def forward(self, x):
        return avg_pool2d(x, 4)


def pictures(regions=True, seed=0, count=COUNT, sides=(SIDE, SIDE)):
    """Noise, in disease samples with a square of 12 pixels in which the first channel is higher; and where that is."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        label, side = number % 2, sides[number // 2 % 2]
        image, region = torch.randn(3, side, side, generator=generator), torch.zeros(1, side, side, dtype=torch.bool)
        top, left = torch.randint(0, side - 12, (2,), generator=generator).tolist()
        region[:, top : top + 12, left : left + 12] = bool(label)
        image[:1] += 2.0 * region * regions
        found.append((image, torch.ones_like(region), label, region))
    return found


def fitted(samples, seed=0):
    labeller = EncoderPseudoLabels(Means())
    labeller.fit(((image, tissue, label) for image, tissue, label, _ in samples), len(samples), seed)
    return labeller


@pytest.fixture(scope="module")
def labeller():
    return fitted(pictures())


def columns(samples):
    return (torch.stack(list(map(torch.as_tensor, part))) for part in zip(*samples, strict=True))


def marks(labeller, samples):
    image, tissue, label, region = (
        torch.stack(list(map(torch.as_tensor, part))) for part in zip(*samples, strict=True)
    )
    return labeller(image, tissue, label.float()), region


def test_it_finds_the_region_of_new_samples(labeller):
    found, region = marks(labeller, pictures(seed=1))
    disease = region.flatten(1).any(1)
    assert found.shape == region.shape
    assert found.dtype == torch.float32
    assert roc_auc_score(region[disease].flatten(), found[disease].flatten()) > 0.9
    assert found[disease][region[disease]].mean() > 4 * found[disease][~region[disease]].mean()


def test_it_is_believed_where_there_is_a_region_and_says_so(labeller):
    assert isinstance(labeller, PseudoLabels)
    assert labeller.held_out_auc > 0.9
    (line,) = labeller.found()
    assert f"{float(labeller.share):.1%}" in line
    assert f"{labeller.held_out_auc:.2f}" in line
    true = torch.stack([region.float().mean() for *_, region in pictures() if region.any()])
    assert labeller.low_share < labeller.share < 3 * true.mean()


def test_it_is_not_believed_where_there_is_none():
    # 128 samples: the area under the ROC of chance then has a deviation of .05.
    assert fitted(pictures(regions=False, count=128)).held_out_auc < FOUND


def test_held_out_labels_are_told_by_networks_that_have_not_seen_them():
    # Features by which each sample can be told from all others: whoever has seen a label knows it, nobody else does.
    samples = []
    for number in range(16):
        image = torch.zeros(16, 8, 8)
        image[number] = 1.0
        samples.append((image, torch.ones(1, 8, 8, dtype=torch.bool), number % 2))
    features = Means()
    features.dimensions = 16
    labeller = EncoderPseudoLabels(features)
    labeller.fit(samples, 16)
    image, _, label = columns(samples)
    assert roc_auc_score(label, labeller.coarse(image).flatten(1).mean(1)) > 0.9
    assert labeller.held_out_auc < 0.75


def test_healthy_samples_and_what_is_no_tissue_have_no_marks(labeller):
    samples = pictures(seed=2, count=8)
    for _, tissue, _, _ in samples:
        tissue[:, :, :10] = False
    found, _ = marks(labeller, samples)
    assert not found[0::2].any()
    assert not found[..., :10].any()
    assert found[1::2][..., 10:].all()


def test_the_same_seed_has_the_same_marks_whatever_torchs_generator_holds(monkeypatch):
    monkeypatch.setattr(room, "STEPS", 5)
    samples = pictures(count=16)
    one = fitted(samples)
    torch.manual_seed(77)  # as another rank has
    other = fitted(samples)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert not torch.equal(one.coarse(samples[0][0][None]), fitted(samples, 1).coarse(samples[0][0][None]))


def test_samples_may_differ_in_size():
    labeller = fitted(pictures(sides=(32, 20)))
    assert labeller.held_out_auc > 0.9
    for image, tissue, label, region in pictures(seed=3, count=4, sides=(20, 20)):
        found = labeller(image[None], tissue[None], torch.tensor([float(label)]))
        assert found.shape == region[None].shape


def test_the_loss_of_samples_of_several_sizes_by_hand():
    generator = torch.Generator().manual_seed(0)
    grids, labels = ((4, 4), (2, 5), (4, 4), (3, 3)), [1.0, 0.0, 0.0, 1.0]
    features = [torch.randn(2, 3, *grid, generator=generator).half() for grid in grids]
    tissue = [torch.rand(grid, generator=generator) > 0.3 for grid in grids]
    network = room.network_of(3)
    told, apart = [], []
    for each, inside, label in zip(features, tissue, labels, strict=True):
        one, other = (network(view.float()[None])[0, 0][inside] for view in each)
        told += [binary_cross_entropy(torch.sigmoid(view.max()), torch.tensor(label)) for view in (one, other)]
        apart += (torch.sigmoid(one) - torch.sigmoid(other)).square()  # all cells count alike
    expected = torch.stack(told).mean() + room.AGREEMENT * torch.stack(apart).mean()
    seen = room.Seen(features, tissue, torch.tensor(labels))
    torch.testing.assert_close(room.loss(network, seen), expected)


def test_samples_of_a_grid_are_computed_side_by_side_and_none_is_enlarged():
    tissue = [torch.ones(side, side, dtype=torch.bool) for side in (2, 5, 2)]
    features = [number * inside.expand(2, 3, -1, -1).half() for number, inside in enumerate(tissue)]
    small, large = room.Seen(features, tissue, torch.tensor([1.0, 0.0, 0.0])).by_grid()
    assert [part.shape for part in small] == [(2, 2, 3, 2, 2), (2, 2, 2), (2,)]
    assert [part.shape for part in large] == [(1, 2, 3, 5, 5), (1, 5, 5), (1,)]
    assert small[0].amax((1, 2, 3, 4)).tolist() == [0, 2]
    assert small[2].tolist() == [1, 0]


def test_standardised_by_all_features_of_tissue(monkeypatch):
    monkeypatch.setattr(room, "STEPS", 5)
    samples = pictures(count=8, sides=(32, 20))
    pixels = torch.cat([avg_pool2d(image[None], 4)[0].flatten(1) for image, *_ in samples], dim=1)
    labeller = fitted(samples)
    torch.testing.assert_close(labeller.mean[:, 0, 0], pixels.mean(1), atol=2e-3, rtol=0)
    torch.testing.assert_close(labeller.deviation[:, 0, 0], pixels.std(1, correction=0), atol=2e-3, rtol=0)


def test_without_weights_nothing_is_fitted_and_nothing_believed():
    features = Means()
    features.knows = False
    labeller = EncoderPseudoLabels(features)
    labeller.fit(iter(()), 4)
    assert labeller.held_out_auc < FOUND
    (line,) = labeller.found()
    assert "no weights" in line


@pytest.mark.parametrize("chosen", [[0, 1], [1, 0, 2, 4], [1, 3, 0], [0, 2]])
def test_a_class_of_one_sample_or_none_tells_nothing(chosen):
    samples = pictures(count=8)
    labeller = fitted([samples[number] for number in chosen])
    assert labeller.held_out_auc < FOUND
    (line,) = labeller.found()
    assert "fewer than two training samples of a class" in line


def test_two_samples_of_each_class_are_learned_from(monkeypatch):
    monkeypatch.setattr(room, "STEPS", 5)
    labeller = fitted(pictures(count=4))
    assert labeller.problem == ""
    assert 0 < labeller.share < 1


def test_it_is_not_trained_with_the_segmenter(labeller):
    assert not any(each.requires_grad for each in labeller.parameters())


def test_the_mean_of_the_highest_by_hand():
    logits, tissue = torch.arange(100.0).view(1, 10, 10), torch.ones(1, 10, 10, dtype=torch.bool)
    assert room.mean_of_highest(logits, tissue).item() == pytest.approx((99 + 98 + 97 + 96 + 95) / 5)
    tissue[:, 4:] = False  # 40 are left, of which two count
    assert room.mean_of_highest(logits, tissue).item() == pytest.approx((39 + 38) / 2)
    assert room.mean_of_highest(logits, torch.zeros_like(tissue)).item() == 0.0


def test_folds_hold_as_many_of_each_class():
    labels = (torch.arange(48) % 3 == 0).float()
    folds = room.folds_of(labels, torch.Generator().manual_seed(0))
    for label, number in ((0, 8), (1, 4)):
        assert torch.bincount(folds[labels == label], minlength=4).tolist() == [number] * 4


def test_the_area_is_that_within_folds():
    generator = torch.Generator().manual_seed(0)
    folds, disease = torch.arange(40) % 4, torch.rand(40, generator=generator) > 0.5
    scores = torch.randn(40, generator=generator) + 10.0 * folds  # levels that say nothing
    expected = sum(roc_auc_score(disease[folds == fold], scores[folds == fold]) for fold in range(4)) / 4
    assert room.mean_auc(scores, disease, folds) == pytest.approx(expected)
    assert math.isnan(room.mean_auc(scores, torch.zeros_like(disease), folds))
