"""An epoch's numbers, against the same taken from whole maps at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_epochs import SIDE, disc, infos_of, output_of
from sklearn.metrics import roc_auc_score

from compseg.comparative import Identity, Sigma, SigmaHead, Trapezoid
from compseg.monitor.diagnostics import BINS, Collector, Pooled, slopes

LABELS = np.array([1, 0, 1, 0, 0, 1, 1])


@pytest.fixture
def maps():
    return np.random.default_rng(0).uniform(0, 1, (len(LABELS), SIDE, SIDE))


def filled(maps, places):
    collector = Collector()
    for place in places:  # batches of one, in any order
        out = output_of(maps[[place]])
        collector.add_training([place], out.x)
        collector.add_validation([place], out, torch.tensor(LABELS[[place]]).float())
    return collector


def finish(collector, reduce):
    return collector.finish(infos_of(LABELS), infos_of(LABELS), Sigma(), reduce)


def test_batches_give_what_whole_maps_do(maps):
    d = finish(filled(maps, [3, 0, 6, 1, 5, 2, 4]), lambda sums: sums)
    maps = maps.astype(np.float32).astype(np.float64)
    on = maps[:, disc()]
    assert d.inside == pytest.approx(on.mean(1))
    assert d.spread == pytest.approx(on.std(1))
    assert d.outside == pytest.approx(maps[:, ~disc()].mean(1))
    assert d.val.x == pytest.approx(on.mean(1), abs=1e-6)
    for label in (0, 1):
        expected = np.histogram(on[label == LABELS], bins=BINS, range=(0, 1))[0]
        # A value on the edge of two bins may fall to either in another precision.
        assert np.abs(d.histogram[label] - expected).sum() <= 2
        assert d.histogram[label].sum() == on[label == LABELS].size


def test_two_ranks_give_what_one_does(maps):
    one = finish(filled(maps, range(7)), lambda sums: sums)
    other_rank: list[torch.Tensor] = []
    finish(filled(maps, [0, 2, 4]), lambda sums: other_rank.append(sums.clone()) or sums)
    both = finish(filled(maps, [1, 3, 5, 6]), lambda sums: sums + other_rank.pop(0))
    for name in ("histogram", "inside", "spread", "outside", "saturated"):
        np.testing.assert_allclose(getattr(both, name), getattr(one, name))
    assert both.val.infos == one.val.infos
    np.testing.assert_allclose(both.train.x, one.train.x)


def test_samples_that_were_not_shown_are_left_out(maps):
    d = finish(filled(maps, [5, 1]), lambda sums: sums)
    assert [info.name for info in d.val.infos] == ["s1", "s5"]
    assert len(d.inside) == len(d.train.x) == 2


def test_an_epoch_taken_up_again_is_whole(maps):
    """What `training_state` holds, put into another process, makes the epoch that was not interrupted."""
    state = filled(maps, [0, 1, 2]).training_state(len(LABELS), lambda sums: sums)
    again = Collector()
    again.add_training(state["index"].tolist(), state["x"])
    for place in (3, 4, 5, 6):
        again.add_training([place], output_of(maps[[place]]).x)
    again.add_validation(list(range(7)), output_of(maps), torch.tensor(LABELS).float())
    whole = finish(filled(maps, range(7)), lambda sums: sums)
    np.testing.assert_allclose(finish(again, lambda sums: sums).train.x, whole.train.x)


def test_tissue_throughout_has_no_outside(maps):
    collector = Collector()
    collector.add_training([0], torch.zeros(1))
    collector.add_validation([0, 1], output_of(maps[:2], np.ones((SIDE, SIDE), bool)), torch.tensor([1.0, 0.0]))
    d = collector.finish(infos_of(LABELS), infos_of(LABELS), Sigma(), lambda sums: sums)
    assert np.isnan(d.outside).all()
    assert np.isnan(d.of(d.outside, 1))


def test_slope_of_sigma_is_its_derivative():
    x = np.linspace(0, 1, 7)
    alpha, beta, gamma = 0.1, 5.0, 0.001
    by_hand = beta / 2 / np.cosh(beta * x / (2 * alpha)) ** 2 + gamma
    np.testing.assert_allclose(slopes(Sigma(alpha, beta, gamma), x), by_hand, rtol=1e-9)


@pytest.mark.parametrize(
    ("transfer", "x", "share"), [(Identity(), 0.9, 0), (Sigma(), 0.5, 1), (Sigma(), 0.01, 0), (Trapezoid(), 0.5, 1)]
)
def test_saturated_is_where_the_transfer_is_flat(transfer, x, share):
    collector = Collector()
    collector.add_training([0], torch.zeros(1))
    collector.add_validation([0], output_of(np.full((1, SIDE, SIDE), x)), torch.tensor([1.0]))
    assert collector.finish(infos_of([1]), infos_of([1]), transfer, lambda sums: sums).saturated == share


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-5, 5)), min_size=2, max_size=30))
def test_auc_is_sklearns(samples):
    labels, x = [label for label, _ in samples], np.array([value for _, value in samples])
    auc = Pooled(infos_of(labels), x).auc
    if len(set(labels)) == 1:
        assert np.isnan(auc)
    else:
        assert auc == pytest.approx(roc_auc_score(labels, x), abs=1e-6)


def test_nan_maps_are_carried_not_lost():
    collector = Collector()
    broken = np.full((1, SIDE, SIDE), 0.5)
    out = output_of(broken)
    collector.add_training([0], torch.zeros(1))
    nan = torch.full_like(out.activation, torch.nan)
    collector.add_validation([0], out._replace(activation=nan, x=torch.tensor([torch.nan])), torch.tensor([1.0]))
    d = collector.finish(infos_of([1]), infos_of([1]), SigmaHead().transfer, lambda sums: sums)
    assert np.isnan(d.inside).all()
