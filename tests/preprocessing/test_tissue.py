from __future__ import annotations

import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.preprocessing import resolve_rule, tissue_mask
from compseg.samples import Channels


def test_rules_on_a_tiny_image():
    image = np.zeros((2, 2, 3))
    image[0, 0, 2] = -1.0
    image[1, 1] = 5.0
    assert tissue_mask(image, "all").all()
    assert tissue_mask(image, "nonzero").tolist() == [[True, False], [False, True]]
    assert tissue_mask(image, "otsu").tolist() == [[False, False], [False, True]]


def test_auto_depends_on_the_axis():
    assert resolve_rule("auto", Channels(2, (1800.0, 948.0), "cm-1")) == "nonzero"
    assert resolve_rule("auto", Channels(3, names=("r", "g", "b"))) == "all"
    assert resolve_rule("otsu", Channels(1)) == "otsu"


def test_otsu_cuts_where_the_variance_within_the_two_classes_is_least():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0, 1, 3000), generator.normal(6, 1.5, 1000)]).astype(np.float32)
    cuts = np.linspace(values.min(), values.max(), 257)[1:-1]
    within = [
        (values <= cut).sum() * values[values <= cut].var() + (values > cut).sum() * values[values > cut].var()
        for cut in cuts
    ]
    reference = values > cuts[np.argmin(within)]
    mask = tissue_mask(values.reshape(50, 80, 1), "otsu")
    assert np.mean(mask.ravel() != reference) < 0.002  # they may differ by one bin of the histogram


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_otsu_needs_finite_values(value):
    with pytest.raises(CompsegError, match="NaN or infinite values have no level"):
        tissue_mask(np.full((2, 2, 1), value), "otsu")


def test_unknown_rule_names_the_choices():
    with pytest.raises(CompsegError, match="auto, all, nonzero or otsu"):
        tissue_mask(np.zeros((1, 1, 1)), "magic")
