import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from compseg.evaluation import bootstrap
from compseg.evaluation.curves import curves_of
from compseg.evaluation.resampling import percentile_interval, resample
from made_maps import mixture

WEIGHTS = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 3, 1], [0, 3, 0, 1, 1, 2]], dtype=float)


def repeated(values, weights):
    return np.repeat(np.asarray(values), weights.astype(int), axis=0)


def test_mean_and_std_are_those_of_repeated_samples():
    values = np.array([0.1, 0.5, 0.9, 0.2, 0.4, 0.7])
    np.testing.assert_allclose(bootstrap.mean(values, WEIGHTS), [repeated(values, w).mean() for w in WEIGHTS])
    np.testing.assert_allclose(bootstrap.std(values, WEIGHTS), [repeated(values, w).std(ddof=1) for w in WEIGHTS])


def test_auc_is_that_of_repeated_samples():
    scores, labels = np.array([0.1, 0.5, 0.5, 0.2, 0.4, 0.7]), np.array([0, 1, 0, 1, 0, 1])
    wanted = [roc_auc_score(repeated(labels, w), repeated(scores, w)) for w in WEIGHTS]
    np.testing.assert_allclose(bootstrap.auc(scores, labels, WEIGHTS), wanted)


def test_average_precision_is_that_of_repeated_samples():
    maps = mixture(6, seed=2, separation=1, size=10)  # few enough pixels for every activation to be a level
    pixels = [m.activation[m.tissue] for m in maps]
    truths = [m.truth[m.tissue] for m in maps]
    found = bootstrap.average_precision(curves_of(maps), WEIGHTS)
    for weights, value in zip(WEIGHTS, found, strict=True):
        picked = np.repeat(np.arange(6), weights.astype(int))
        scores, target = (np.concatenate([part[i] for i in picked]) for part in (pixels, truths))
        assert value == pytest.approx(average_precision_score(target, scores))


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_average_precision_from_levels_is_close_for_many_pixels(scale):
    maps = mixture(10, seed=5, separation=1.5, size=48, scale=scale)
    scores = np.concatenate([m.activation[m.tissue] for m in maps])
    target = np.concatenate([m.truth[m.tissue] for m in maps])
    (found,) = bootstrap.average_precision(curves_of(maps), np.ones((1, 10)))
    assert found == pytest.approx(average_precision_score(target, scores), abs=2e-3)


def test_average_precision_counts_pixels_of_no_activation():
    maps = mixture(2, size=8)
    dead = [type(m)(m.info, np.zeros_like(m.activation), m.tissue, m.truth, 0.0, 0.0) for m in maps]
    (found,) = bootstrap.average_precision(curves_of(dead), np.ones((1, 2)))
    assert found == pytest.approx(sum(m.truth.sum() for m in maps) / sum(m.tissue.sum() for m in maps))


def test_best_dice_is_found_anew_in_each_replicate():
    judged = mixture(12, seed=1)[1::2]
    curves = curves_of(judged)
    wanted = [repeated(curves.dice, w).mean(axis=0).max() for w in WEIGHTS]
    np.testing.assert_allclose(bootstrap.dice_best(curves, WEIGHTS), wanted)


def test_undefined_replicates_are_nan():
    nobody = np.array([[0.0, 0.0]])
    assert np.isnan(bootstrap.mean(np.ones(2), nobody))
    assert np.isnan(bootstrap.std(np.ones(2), np.array([[1.0, 0.0]])))
    assert np.isnan(bootstrap.auc(np.ones(2), np.array([0, 1]), np.array([[2.0, 0.0]])))


def test_auc_intervals_cover_the_true_auc():
    # Scores are normal, one standard deviation apart: AUC = Phi(1 / sqrt 2).
    rng, true, covered = np.random.default_rng(7), 0.76025, 0
    labels = np.repeat([0, 1], 20)
    infos = [m.info for m in mixture(40)]
    infos = [type(i)(i.name, int(label)) for i, label in zip(infos, labels, strict=True)]
    for trial in range(150):
        scores = rng.normal(size=40) + labels
        low, high = percentile_interval(bootstrap.auc(scores, labels, resample(infos, 300, seed=trial)))
        covered += low <= true <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_patients_that_repeat_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 4)
    infos = [m.info for m in mixture(40)]
    alone = [type(i)(i.name, 1) for i in infos]
    together = [type(i)(i.name, 1, patient=f"p{n // 4}") for n, i in enumerate(infos)]
    widths = []
    for cohort in (alone, together):
        low, high = percentile_interval(bootstrap.mean(values, resample(cohort, 1000, seed=0)))
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]
