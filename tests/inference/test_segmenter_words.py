"""What a segmenter says of itself, and of what is no image."""

import numpy as np
import pytest
import torch

from compseg import load_segmenter
from compseg.errors import CompsegError
from compseg.inference.threshold import Threshold


def test_it_describes_itself_in_ten_lines(trained):
    segmenter = load_segmenter(trained.run)
    said = segmenter.describe()
    assert repr(segmenter) == said
    assert len(said.splitlines()) <= 10
    assert max(map(len, said.splitlines())) <= 160
    for part in (trained.run.name, "channels     8 from", "float16", segmenter.threshold.how):
        assert part in said
    assert "none yet" in segmenter.with_threshold(None).describe()


def test_a_mask_is_the_map_above_the_threshold(trained):
    segmenter = load_segmenter(trained.run)
    cube = np.random.default_rng(0).random((20, 20, 8), np.float32)
    tissue = np.ones((20, 20), bool)
    tissue[:, :5] = False
    activation = segmenter(cube, tissue)
    middle = Threshold(float(np.median(activation[tissue])), "by hand", 0.0, 0.0, "fixed")
    mask = segmenter.with_threshold(middle).mask(cube, tissue)
    assert np.array_equal(mask, (activation > middle.value) & tissue)
    assert 0 < mask.sum() < tissue.sum()
    with pytest.raises(CompsegError, match="no threshold yet"):
        segmenter.with_threshold(None).mask(cube)


@pytest.mark.parametrize(
    "given", ["images/a.npy", [[1.0, 2.0]], torch.zeros(20, 20, 8)], ids=["a path", "a list", "a tensor"]
)
def test_what_is_no_array_is_refused(trained, given):
    with pytest.raises(CompsegError, match=rf"expected a NumPy array \(H, W, 8\), got {type(given).__name__}; read"):
        load_segmenter(trained.run)(given)
