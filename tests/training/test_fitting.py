"""What is shown while something is fitted before training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from compseg.training import fit


@pytest.fixture
def data():
    return SimpleNamespace(train=range(4), trainer=SimpleNamespace(is_global_zero=True))


def test_in_a_log_a_line_every_few_seconds_says_how_far_it_is(data, monkeypatch):
    said, clock = [], iter(range(0, 100, 3))
    monkeypatch.setattr(fit, "log", said.append)
    monkeypatch.setattr(fit, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(fit.shown("abcdef", "rounds", data, 6)) == list("abcdef")
    assert said == ["fitting rounds: 2 of 6, 12 s left", "fitting rounds: 4 of 6, 6 s left"]


def test_other_ranks_and_fits_outside_of_a_run_are_silent(data, monkeypatch):
    monkeypatch.setattr(fit, "SILENT", -1.0)
    monkeypatch.setattr(fit, "log", pytest.fail)
    for trainer in (None, SimpleNamespace(is_global_zero=False)):
        data.trainer = trainer
        assert list(fit.shown("abcd", "samples", data)) == list("abcd")
