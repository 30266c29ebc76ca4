"""The pseudo-labeller against the plain one of the benchmark, in each of its modes."""

from __future__ import annotations

import labeller
import pytest
import torch

from compseg.comparative import FisherPseudoLabels
from compseg.comparative.pseudo_labels import spectra as module
from made_spectra import CHANNELS, made_cohort, partly_disease_throughout, tiles_of_a_scene

COHORTS = {
    "own sample": (made_cohort, True, False),
    "own sample with a stand-in": (partly_disease_throughout, True, True),
    "none": (tiles_of_a_scene, False, False),
}


def samples_of(make):
    return [(image, tissue, label) for image, tissue, _, label in make()]


@pytest.mark.parametrize(("make", "own", "stand_in"), COHORTS.values(), ids=COHORTS)
def test_it_marks_what_the_plain_one_marks(make, own, stand_in):
    samples = samples_of(make)
    ours, plain = (FisherPseudoLabels(CHANNELS, neighbourhood=3, pixels=20_000) for _ in range(2))
    ours.fit(samples, len(samples))
    labeller.fit_plainly(plain, samples, len(samples))
    assert (bool(ours.own), bool(ours.stand_in)) == (own, stand_in) == (bool(plain.own), bool(plain.stand_in))
    assert ours.held_out_auc == pytest.approx(plain.held_out_auc, abs=1e-6)
    assert labeller.disagreement(ours, plain, samples) == 0


def test_pixels_a_few_at_a_time_mark_the_same(monkeypatch):
    samples = samples_of(made_cohort)
    whole, streamed = (FisherPseudoLabels(CHANNELS, neighbourhood=3, pixels=20_000) for _ in range(2))
    monkeypatch.setattr(module, "BLOCK", 10**9)
    whole.fit(samples, len(samples))
    monkeypatch.setattr(module, "BLOCK", 7)
    streamed.fit(iter(samples), len(samples))
    torch.testing.assert_close(streamed.filter, whole.filter, rtol=1e-4, atol=1e-6)
    assert labeller.disagreement(whole, streamed, samples) == 0


def test_more_samples_than_pixels_and_one_without_tissue():
    samples = samples_of(lambda: made_cohort(12))
    samples[3] = (samples[3][0], torch.zeros_like(samples[3][1]), 1)
    found = FisherPseudoLabels(CHANNELS, neighbourhood=3, pixels=12)
    found.fit(samples, len(samples))
    assert found.filter.isfinite().all()


def test_the_benchmark_says_how_they_compare():
    time, marks, memory = labeller.compared("made", samples_of(lambda: made_cohort(8)))
    assert time.ours > 0
    assert (marks.ours, marks.theirs) == (0, 8 * 22 * 24)
    assert 0 <= memory.ours < memory.theirs
