import numpy as np

from compseg.evaluation.thresholds import fixed
from compseg.evaluation.uncertainty import errors_by_spread
from made_maps import by_hand


def test_errors_are_counted_where_spread_is_low_and_where_it_is_high():
    truth = [1] * 8 + [0] * 8
    item = by_hand([0.9] * 4 + [0.1] * 4 + [0.1] * 8, truth=truth)
    spread = np.array([[0.1] * 4 + [0.3] * 4 + [0.2] * 8], np.float32)
    found = errors_by_spread([(item, spread)], fixed(0.5))
    assert sum(found["pixels"]) == 16
    assert found["wrong"] == [0] * 6 + [1] * 2
    assert found["spread"] == sorted(found["spread"])
    assert errors_by_spread([], fixed(0.5)) is None
