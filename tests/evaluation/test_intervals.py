import numpy as np
import pytest

from compseg.evaluation.intervals import mean, percentile_interval, resample, std
from compseg.samples import SampleInfo
from made_maps import mixture

WEIGHTS = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 3, 1], [0, 3, 0, 1, 1, 2]], dtype=float)


def repeated(values, weights):
    return np.repeat(np.asarray(values), weights.astype(int), axis=0)


def test_each_replicate_draws_as_many_of_each_class():
    infos = [SampleInfo(f"s{i}", int(i < 3)) for i in range(10)]
    counts = resample(infos, 200, seed=0)
    assert counts.shape == (200, 10)
    assert (counts[:, :3].sum(axis=1) == 3).all()
    assert (counts[:, 3:].sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(10), abs=0.25)


def test_samples_of_a_patient_come_and_go_together():
    infos = [SampleInfo(f"s{i}", 1, patient=f"p{i // 2}") for i in range(10)]
    counts = resample(infos, 100, seed=1)
    np.testing.assert_array_equal(counts[:, 0::2], counts[:, 1::2])
    assert len(np.unique(counts[:, 0])) > 2


def test_fewer_patients_than_five_are_no_units():
    """Of two patients a replicate holds one, the other or both: three values, whose middle 95 % say nothing."""
    infos = [SampleInfo(f"s{i}", 1, patient=f"p{i % 4}") for i in range(8)]
    counts = resample(infos, 100, seed=1)
    assert (counts[:, :4] != counts[:, 4:]).any()
    assert (resample([SampleInfo(info.name, 1) for info in infos], 100, seed=1) == counts).all()


def test_a_patient_named_like_a_sample_is_another_unit():
    infos = [SampleInfo("x", 1), SampleInfo("y", 1, patient="x"), *(SampleInfo(c, 1, patient=c) for c in "abcd")]
    counts = resample(infos, 50, seed=0)
    assert (counts[:, 0] != counts[:, 1]).any()


def test_equal_seeds_draw_alike():
    infos = [SampleInfo(f"s{i}", i % 2) for i in range(6)]
    np.testing.assert_array_equal(resample(infos, 20, seed=3), resample(infos, 20, seed=3))
    assert (resample(infos, 20, seed=3) != resample(infos, 20, seed=4)).any()


def test_interval_is_the_middle_95_percent():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert percentile_interval(np.array([np.nan, 2.0, 2.0])) == (2.0, 2.0)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_interval_of_a_mean_covers_it_about_95_times_in_100():
    rng, infos, covered = np.random.default_rng(0), [SampleInfo(f"s{i}", 1) for i in range(40)], 0
    for trial in range(200):
        values = rng.exponential(size=40)
        weights = resample(infos, 300, seed=trial)
        low, high = percentile_interval(weights @ values / 40)
        covered += low <= 1 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_mean_and_std_are_those_of_repeated_samples():
    values = np.array([0.1, 0.5, 0.9, 0.2, 0.4, 0.7])
    np.testing.assert_allclose(mean(values, WEIGHTS), [repeated(values, w).mean() for w in WEIGHTS])
    np.testing.assert_allclose(std(values, WEIGHTS), [repeated(values, w).std(ddof=1) for w in WEIGHTS])


def test_undefined_replicates_are_nan():
    nobody = np.array([[0.0, 0.0]])
    assert np.isnan(mean(np.ones(2), nobody))
    assert np.isnan(std(np.ones(2), np.array([[1.0, 0.0]])))


def test_patients_that_repeat_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 4)
    infos = [m.info for m in mixture(40)]
    alone = [type(i)(i.name, 1) for i in infos]
    together = [type(i)(i.name, 1, patient=f"p{n // 4}") for n, i in enumerate(infos)]
    widths = []
    for cohort in (alone, together):
        low, high = percentile_interval(mean(values, resample(cohort, 1000, seed=0)))
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]
