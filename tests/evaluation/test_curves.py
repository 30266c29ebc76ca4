import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compseg.evaluation.curves import curves_of
from made_maps import by_hand, mixture

activations = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)


def test_counts_by_hand():
    curves = curves_of([by_hand([0.0, 0.25, 0.5, 1.0], truth=[0, 1, 0, 1], tissue=[1, 1, 1, 1])])
    at = {level: i for i, level in enumerate(curves.levels)}
    assert curves.above[0, at[0.0]] == 3
    assert curves.above[0, at[0.25]] == 2
    assert curves.above[0, at[1.0]] == 0
    assert curves.hits[0, at[0.25]] == 1
    assert curves.dice[0, at[0.25]] == 2 * 1 / (2 + 2)
    assert curves.fractions[0, at[0.5]] == 0.25


@given(activations)
def test_counts_are_those_of_comparing_each_pixel(values):
    item = by_hand(values)
    curves = curves_of([item])
    assert set(item.activation.ravel().tolist()) <= set(curves.levels.tolist())
    wanted = [(item.activation > level).sum() for level in curves.levels.astype(np.float32)]
    np.testing.assert_array_equal(curves.above[0], wanted)


def test_background_and_missing_truth_count_nothing():
    curves = curves_of([by_hand([0.9, 0.9, 0.1], tissue=[1, 0, 1])])
    assert curves.tissue.tolist() == [2]
    assert curves.above[0, 0] == 2
    assert curves.disease.tolist() == [0]
    assert not curves.hits.any()


def test_a_squeezed_map_keeps_its_resolution():
    faint = mixture(2, scale=1e-4)
    distinct = np.unique(curves_of(faint).above[0]).size
    assert distinct > 200  # even steps alone would see a single one


def test_no_maps_and_no_tissue():
    assert curves_of([]).above.shape[0] == 0
    assert curves_of([by_hand([0.5], tissue=[0])]).fractions.max() == 0
