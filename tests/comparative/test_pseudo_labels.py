"""The pseudo-labeller against independent computations, and on made samples where what it should find is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from compseg.comparative import FisherPseudoLabels
from compseg.comparative.pseudo_labels.choice import HALVINGS, MODES, best_at, best_of, held_out_auc, shares_of
from compseg.comparative.pseudo_labels.marking import (
    Marking,
    ReferenceMode,
    auc,
    excess_share,
    fisher,
    in_order,
    mark_and_refit,
    quantiles,
)
from compseg.comparative.pseudo_labels.small_targets import SmallTargets, shares_above
from compseg.comparative.pseudo_labels.spectra import Spectra, local_mean, local_means, parts_of
from made_spectra import (
    CHANNELS,
    SIGNATURE,
    made_cohort,
    made_sample,
    partly_disease_throughout,
    small_targets,
    stacked,
    tiles_of_a_scene,
)


def fitted(samples, **options) -> FisherPseudoLabels:
    pseudo_labels = FisherPseudoLabels(CHANNELS, **{"pixels": 12_000} | options)
    pseudo_labels.fit([(image, tissue, label) for image, tissue, _, label in samples], len(samples))
    return pseudo_labels


def shifted(image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A different spectrum added to all spectra of each sample, far beyond what tells samples apart."""
    shift = 9 * torch.randn(len(image), CHANNELS, generator=torch.Generator().manual_seed(seed))
    return image + shift[:, :, None, None]


def test_it_finds_the_region_in_new_samples_whatever_tells_samples_apart():
    pseudo_labels = fitted(made_cohort(), neighbourhood=3)
    image, tissue, truth, labels = stacked(made_cohort(seed=1))
    marked = pseudo_labels(image, tissue, labels)
    assert 2 * (marked & truth).sum() / (marked.sum() + truth.sum()) > 0.85
    diseased = truth[labels > 0].sum() / tissue[labels > 0].sum()
    assert pseudo_labels.share == pytest.approx(diseased.item(), abs=0.06)


def test_healthy_samples_and_background_are_never_marked():
    pseudo_labels = fitted(made_cohort())
    image, tissue, _, labels = stacked(made_cohort(seed=1))
    marked = pseudo_labels(image, tissue, labels)
    assert not marked[labels == 0].any()
    assert not marked[~tissue].any()
    assert marked.any()


def test_rotating_a_sample_rotates_its_mark():
    pseudo_labels = fitted(made_cohort())
    image, tissue, _, labels = stacked(made_cohort(seed=1))
    rotated = pseudo_labels(image.rot90(1, (-2, -1)), tissue.rot90(1, (-2, -1)), labels)
    assert torch.equal(rotated, pseudo_labels(image, tissue, labels).rot90(1, (-2, -1)))


def test_the_same_pixels_give_the_same_fit_and_the_state_travels():
    one, other = fitted(made_cohort()), fitted(made_cohort())
    assert torch.equal(one.filter, other.filter)
    copy = FisherPseudoLabels(CHANNELS)
    copy.load_state_dict(one.state_dict())
    image, tissue, _, labels = stacked(made_cohort(seed=1))
    assert torch.equal(copy(image, tissue, labels), one(image, tissue, labels))


def test_what_it_marks_where_nothing_differs_says_nothing_about_new_samples():
    """Twenty samples always differ in something; whatever it is, it must not be mistaken for more than that."""
    generator = np.random.default_rng(3)
    samples = [(*made_sample(generator, disease=False)[:3], index % 2) for index in range(60)]
    pseudo_labels = fitted(samples[:20])
    image, tissue, _, labels = stacked(samples[20:])
    above = ((pseudo_labels.score(image, tissue) > pseudo_labels.level) & tissue).flatten(1).double().mean(1)
    assert abs(above[labels > 0].mean() - above[labels == 0].mean()) < 0.2


def test_one_channel_is_enough():
    samples = [(image[1:2], tissue, truth, label) for image, tissue, truth, label in made_cohort()]
    pseudo_labels = FisherPseudoLabels(1, neighbourhood=3)
    pseudo_labels.fit(((image, tissue, label) for image, tissue, _, label in samples), len(samples))
    assert pseudo_labels.filter.isfinite().all()


def test_a_sample_is_compared_with_itself():
    """What moves a whole sample, however far, does not move its mark."""
    pseudo_labels = fitted(made_cohort())
    image, tissue, _, labels = stacked(made_cohort(seed=1))
    same = pseudo_labels(shifted(image), tissue, labels) == pseudo_labels(image, tissue, labels)
    assert same.double().mean() > 0.999


def test_with_a_stand_in_a_sample_may_move_away_from_disease_alone():
    pseudo_labels = fitted(made_cohort())
    pseudo_labels.stand_in.fill_(True)
    image, tissue, _, labels = stacked(made_cohort(seed=1))
    away = shifted(image) - image
    towards = (away[:, :, :1, :1] * pseudo_labels.filter[:, None, None]).sum(1, keepdim=True).sign()
    same = pseudo_labels(image - away * towards, tissue, labels) == pseudo_labels(image, tissue, labels)
    assert same.double().mean() > 0.99
    assert pseudo_labels(image + away * towards, tissue, labels).sum() > 2 * pseudo_labels(image, tissue, labels).sum()


def test_samples_that_are_disease_throughout_are_marked_throughout():
    """They have no healthy pixel of their own to be compared with; no healthy sample looks like them."""
    samples, whole = partly_disease_throughout(), torch.arange(120) % 6 == 1
    image, tissue, truth, labels = stacked(samples)
    pseudo_labels = fitted(samples, neighbourhood=3)
    assert pseudo_labels.own
    assert pseudo_labels.stand_in
    marked = pseudo_labels(image, tissue, labels)
    assert marked[whole].sum() / truth[whole].sum() > 0.95
    assert 2 * (marked & truth)[~whole].sum() / (marked[~whole].sum() + truth[~whole].sum()) > 0.85


@pytest.mark.parametrize(
    ("marked", "highest", "stand_in", "expected"),
    [
        ([0, 0, 1], 2.5, True, [2, 0]),
        ([0, 0, 1], 1.5, True, [1.5, 7]),
        ([1, 1, 1], 2.5, True, [2.5, 7]),
        ([0, 0, 1], 1.5, False, [2, 0]),
        ([1, 1, 1], 2.5, False, [13 / 3, 0]),
    ],
)
def test_a_background_scores_no_higher_than_every_healthy_sample(marked, highest, stand_in, expected):
    """The mean of the unmarked pixels, unless it scores higher than the highest healthy sample, or there are none."""
    pixels, weights = torch.tensor([[1.0, 0], [3.0, 0], [9.0, 0]]), torch.tensor(marked).double()[:, None]
    sizes = torch.tensor([3])
    spectra = Spectra(pixels, torch.zeros(3, dtype=torch.long), sizes, sizes > 0, pixels.double().mean(0)[None])
    marking = Marking(spectra, parts_of(spectra, 0)[0], ReferenceMode(True, stand_in), 1e-3)
    marking.counts, marking.sums = weights.sum(0)[None], (weights * pixels).sum(0)[None]
    marking.direction = torch.tensor([1.0, 0]).double()
    assert marking.background(torch.tensor([highest, 7]).double())[0].tolist() == pytest.approx(expected)


def test_samples_whose_rest_is_no_background_are_read_as_they_are():
    """Tiles of a scene: what is not disease is one field or another, and their means say nothing about disease."""
    samples = tiles_of_a_scene()
    pseudo_labels = fitted(samples, neighbourhood=3)
    image, tissue, truth, labels = stacked(samples)
    marked = pseudo_labels(image, tissue, labels)
    assert not pseudo_labels.own
    assert not pseudo_labels.stand_in
    assert 2 * (marked & truth).sum() / (marked.sum() + truth.sum()) > 0.85
    assert fitted(made_cohort()).own


def test_auc_against_sklearn():
    generator = torch.Generator().manual_seed(0)
    healthy, disease = (torch.randint(0, 9, (count,), generator=generator) for count in (30, 40))
    expected = roc_auc_score([0] * 30 + [1] * 40, torch.cat([healthy, disease]))
    assert auc(healthy, disease) == pytest.approx(expected)


def test_fisher_against_sklearn():
    generator = np.random.default_rng(0)
    zeros, ones = generator.normal(size=(400, 4)), generator.normal(size=(300, 4)) @ np.diag([1, 2, 1, 1]) + 1
    both = torch.from_numpy(np.vstack([ones, zeros]))
    sets = [(torch.from_numpy(each.sum(0)), torch.tensor(len(each))) for each in (ones, zeros)]
    found = fisher(both.T @ both, *sets, 1e-9).numpy()
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(np.vstack([zeros, ones]), [0] * 400 + [1] * 300).coef_[0]
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-6)


def test_excess_share_of_a_known_mixture():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(20000, generator=generator, dtype=torch.float64)
    mixed = torch.cat(
        [
            torch.randn(14000, generator=generator, dtype=torch.float64),
            torch.randn(6000, generator=generator, dtype=torch.float64) + 8,
        ]
    )
    share, level = excess_share(mixed, clean)
    assert share.item() == pytest.approx(0.3, abs=0.01)
    assert (mixed > level).double().mean().item() == pytest.approx(0.3, abs=0.01)


def test_quantiles_against_torch():
    scores = torch.randn(999, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.equal(quantiles(in_order(scores), shares), torch.quantile(scores, shares))


def test_means_at_places_are_those_of_the_map():
    image, tissue, _, _ = made_cohort(1)[0]
    everywhere = local_mean(image[None], tissue[None], 5)[0][:, tissue[0]].T
    places = tissue.flatten().nonzero()[:, 0]
    torch.testing.assert_close(local_means(image, tissue, places, 5), everywhere, atol=1e-6, rtol=1e-6)


def test_local_mean_against_scipy():
    generator = np.random.default_rng(0)
    image, tissue = generator.normal(size=(9, 11)), generator.random((9, 11)) > 0.3
    total, share = (uniform_filter(x, 3, mode="constant") for x in (image * tissue, tissue.astype(float)))
    found = local_mean(torch.from_numpy(image)[None, None], torch.from_numpy(tissue)[None, None], 3)[0, 0].numpy()
    np.testing.assert_allclose(found[tissue], (total / np.maximum(share, 1e-9))[tissue], atol=1e-9)
    assert not found[~tissue].any()


def test_what_moves_a_whole_sample_leaves_its_contrast():
    pseudo_labels = fitted(made_cohort())
    image, tissue, _, _ = stacked(made_cohort(seed=1))
    same = (pseudo_labels.contrast(shifted(image), tissue) - pseudo_labels.contrast(image, tissue)).abs() < 1e-4
    assert same.double().mean() > 0.99
    assert not pseudo_labels.contrast(image, tissue)[(~tissue).expand_as(image)].any()


@pytest.mark.parametrize("stand_in", [False, True])
def test_contrast_is_the_pixel_less_the_mean_of_its_samples_unmarked_pixels(stand_in):
    pseudo_labels = fitted(made_cohort())
    pseudo_labels.stand_in.fill_(stand_in)
    image, tissue, _, _ = stacked(made_cohort(seed=1))
    marked = pseudo_labels.marked(pseudo_labels.score(image, tissue), tissue)
    assert pseudo_labels.own
    highest = (pseudo_labels.highest.double() @ pseudo_labels.filter.double()).item()
    for sample, inside, mark, contrast in zip(
        image, tissue, marked, pseudo_labels.contrast(image, tissue), strict=True
    ):
        background = sample[:, (inside & ~mark)[0]].double().mean(1)
        if stand_in and background @ pseudo_labels.filter.double() > highest:
            background = pseudo_labels.highest.double()
        expected = (sample.double() - background[:, None, None]) * inside
        torch.testing.assert_close(contrast.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_sample_that_is_marked_throughout_is_compared_with_the_healthy_sample_that_comes_nearest():
    pseudo_labels = fitted(made_cohort(cue=0.2), neighbourhood=3)
    pseudo_labels.stand_in.fill_(True)
    image, tissue, _, _ = stacked(made_cohort(seed=1, cue=0.2))
    everywhere = image[:1] + 3 * torch.from_numpy(SIGNATURE).float()[:, None, None]
    expected = (everywhere - pseudo_labels.highest[:, None, None]) * tissue[:1]
    torch.testing.assert_close(pseudo_labels.contrast(everywhere, tissue[:1]), expected, atol=1e-5, rtol=0)


def test_where_own_samples_are_no_background_images_stay_as_they_are():
    pseudo_labels = fitted(made_cohort())
    pseudo_labels.own.fill_(False)
    image, tissue, _, _ = stacked(made_cohort(seed=1))
    assert torch.equal(pseudo_labels.contrast(image, tissue), image * tissue)


def test_contrast_keeps_the_layout_with_channels_last():
    pseudo_labels = fitted(made_cohort())
    image, tissue, _, _ = stacked(made_cohort(seed=1))
    image = image.contiguous(memory_format=torch.channels_last)
    assert pseudo_labels.contrast(image, tissue).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("found", "low", "high"), [(True, 0.95, 1.0), (False, 0.2, 0.69)])
def test_it_knows_from_held_out_labels_whether_it_found_anything(found: bool, low: float, high: float):
    generator = np.random.default_rng(3)
    samples = [made_sample(generator, found and bool(index % 2)) for index in range(60)]
    samples = [(*sample[:3], index % 2) for index, sample in enumerate(samples)]
    pseudo_labels = fitted(samples, neighbourhood=3)
    assert low <= pseudo_labels.held_out_auc <= high
    assert 0 < pseudo_labels.share < 1


def test_too_few_samples_prove_nothing():
    pseudo_labels = fitted(made_cohort(3), neighbourhood=3)
    assert np.isnan(pseudo_labels.held_out_auc)
    assert pseudo_labels.own


def test_targets_of_single_pixels_are_found_by_themselves():
    """Five pixels a side blur them away; the side and the way of looking are chosen by labels alone."""
    pseudo_labels = fitted(small_targets(), neighbourhood="auto", pixels=40_000)
    assert (pseudo_labels.neighbourhood, pseudo_labels.small) == (1, True)
    assert pseudo_labels.tried.keys() == {5, 9, 3, 1}
    assert pseudo_labels.tried[5] < 0.8 < 0.9 < pseudo_labels.held_out_auc
    samples = [(image, tissue, label) for image, tissue, _, label in small_targets()]
    again = best_at(1, samples, 40_000 // len(samples), len(samples), 0, pseudo_labels.shrinkage, range(30), HALVINGS)
    assert again.held_out_auc == pseudo_labels.held_out_auc
    image, tissue, truth, labels = stacked(small_targets(seed=1))
    marked = pseudo_labels(image, tissue, labels)
    assert 2 * (marked & truth).sum() / (marked.sum() + truth.sum()) > 0.8


def test_where_the_first_neighbourhood_tells_nearly_all_labels_no_other_is_tried():
    pseudo_labels = fitted(made_cohort(), neighbourhood="auto")
    assert pseudo_labels.tried == {5: pseudo_labels.held_out_auc}
    assert (pseudo_labels.neighbourhood, pseudo_labels.small) == (5, False)
    same = fitted(made_cohort(), neighbourhood=5)
    assert torch.equal(pseudo_labels.filter, same.filter)


def test_too_few_samples_choose_nothing():
    assert list(fitted(made_cohort(3), neighbourhood="auto").tried) == [5]


def test_another_is_taken_only_if_it_is_better_by_its_margin():
    assert best_of("abc", [0.7, 0.74, 0.72], [0, 0.05, 0.05]) == "a"
    assert best_of("abc", [0.7, 0.74, 0.76], [0, 0.05, 0.05]) == "c"


def test_shares_above_levels_by_hand():
    scores, levels = torch.tensor([1.0, 2, 3, 0, 5]), torch.tensor([0.0, 2.0])
    found = shares_above(scores, torch.tensor([3, 0, 2]), levels)
    assert found.tolist() == pytest.approx(np.array([[1, 1 / 3], [1 / 2, 1 / 2]]))


def spectra_of(samples) -> Spectra:
    """All tissue pixels of some samples, as they are."""
    pixels = torch.cat([image[:, tissue[0]].T for image, tissue, _, _ in samples])
    sizes = torch.tensor([int(tissue.sum()) for _, tissue, _, _ in samples])
    disease = torch.tensor([label > 0 for *_, label in samples])
    owner = torch.repeat_interleave(torch.arange(len(samples)), sizes)
    means = torch.stack([pixels[owner == k].double().mean(0) for k in range(len(samples))])
    return Spectra(pixels, owner, sizes, disease, means)


def test_samples_are_halved_several_times_and_held_out_labels_judge_by_the_mean():
    spectra = spectra_of(made_cohort(12))
    parts = parts_of(spectra, seed=4, halvings=3)
    pairs = [(one.samples, other.samples) for one, other in zip(parts[1::2], parts[2::2], strict=True)]
    assert all(torch.equal(one, ~other) for one, other in pairs)
    assert {int((one & spectra.disease).sum()) for pair in pairs for one in pair} == {3}
    assert len({tuple(one.tolist()) for one, _ in pairs}) == 3
    assert torch.equal(parts_of(spectra, seed=4)[1].samples, pairs[0][0])
    halves = [Marking(spectra, part, MODES[0], 1e-3) for part in parts[1:]]
    mark_and_refit(spectra, halves, range(2))
    areas = []
    for half in halves:
        shares = shares_of(half.scores.double(), spectra.sizes, half.fit)[~half.part.samples]
        areas.append(roc_auc_score(spectra.disease[~half.part.samples], shares))
    assert held_out_auc(spectra, halves) == pytest.approx(np.mean(areas))


def test_candidates_are_the_pixels_of_largest_mahalanobis_distance():
    """A pixel scored along the direction towards itself has its distance."""
    spectra = spectra_of(small_targets(8))
    pixels, owner, _, disease, means = spectra
    whole = parts_of(spectra, 0)[0]
    directions = SmallTargets(spectra, whole, ReferenceMode(True, False), 0.0).candidates()
    deviations = (pixels.double() - means[owner]).numpy()
    inverse = np.linalg.inv(deviations.T @ deviations / len(deviations))
    expected = np.sqrt(np.einsum("nc,cd,nd->n", deviations, inverse, deviations))
    places = [np.flatnonzero((owner == k).numpy()) for k in range(8) if disease[k]]
    farthest = np.concatenate([each[np.argsort(-expected[each])[:3]] for each in places])
    found = (deviations[farthest] * directions.numpy()).sum(1)
    np.testing.assert_allclose(found, expected[farthest], rtol=1e-4)
