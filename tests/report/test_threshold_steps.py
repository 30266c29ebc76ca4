import numpy as np
import pytest

from compseg.evaluation.thresholds import fixed
from compseg.report.reliability import reliability_of
from compseg.report.steps import AREA_CUT, MOST, area_cut, codes_of, counts_above, steps_of
from made_maps import by_hand, mixture


@pytest.mark.parametrize("value", [0.0, 0.38298526406288147, 0.5, 1.0])
def test_steps_hold_the_stored_threshold_and_differ_as_activations_do(value):
    steps = steps_of(mixture(8), fixed(value))
    assert value in steps
    assert len(steps) <= MOST
    assert (np.diff(steps.astype(np.float32)) > 0).all()
    assert steps.min() >= 0
    assert steps.max() <= 1


def test_codes_of_values_at_a_step_and_off_tissue():
    steps = np.array([0.0, 0.5])
    item = by_hand([0.0, 0.25, 0.5, 0.75, 0.9], tissue=[1, 1, 1, 1, 0])
    codes = codes_of(item.activation, item.tissue, steps)
    # 0.5 does not exceed 0.5.
    assert codes.tolist() == [[0, 1, 1, 2, 255]]
    assert counts_above(codes, 2).tolist() == [3, 1]


def test_cut_tells_validation_samples_apart_best():
    def sample(marked, label):
        return by_hand([0.9] * marked + [0.1] * (10 - marked), label=label)

    val = [sample(6, 1), sample(8, 1), sample(0, 0), sample(2, 0)]
    assert area_cut(val, fixed(0.5)) == pytest.approx(0.4)
    assert area_cut(val[:2], fixed(0.5)) == AREA_CUT
    assert area_cut([sample(0, 1), sample(0, 0)], fixed(0.5)) == 0


def test_reliability_of_probabilities_is_the_diagonal():
    generator = np.random.default_rng(0)
    activation = generator.uniform(size=(100, 100)).astype(np.float32)
    item = by_hand(activation, truth=generator.uniform(size=(100, 100)) < activation)
    found = reliability_of([item])
    assert np.allclose(found["activation"], found["share"], atol=0.06)
    assert sum(found["pixels"]) == 10_000
    assert reliability_of([by_hand([0.5])]) is None
