import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.plots.overlay import DISEASE_RGB, OPACITY, as_rgb, outline, overlay, resize

NOTHING = np.zeros((4, 4), bool)


def test_no_activation_leaves_the_picture_alone():
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(picture, np.zeros((4, 4), np.float32), NOTHING), picture)


def test_full_activation_shows_the_colour_at_its_opacity():
    white = np.full((4, 4, 3), 255, np.uint8)
    laid = overlay(white, np.ones((4, 4), np.float32), NOTHING)
    wanted = [(1 - OPACITY) * 255 + OPACITY * c for c in DISEASE_RGB]
    np.testing.assert_allclose(laid[0, 0], wanted, atol=0.5)


def test_the_outline_is_drawn_opaque_and_the_inside_stays():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    laid = overlay(np.full((7, 7, 3), 255, np.uint8), np.zeros((7, 7), np.float32), mask)
    assert tuple(laid[1, 3]) == DISEASE_RGB
    assert tuple(laid[3, 3]) == (255, 255, 255)
    assert tuple(laid[0, 0]) == (255, 255, 255)


def test_takes_the_size_of_the_picture():
    laid = overlay(np.zeros((20, 30, 3), np.uint8), np.ones((4, 6), np.float32), np.ones((4, 6), bool))
    assert laid.shape == (20, 30, 3)
    assert laid.dtype == np.uint8


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 12)])
def test_cubes_become_grey(shape):
    grey = as_rgb(np.random.default_rng(0).normal(size=shape).astype(np.float16))
    assert grey.shape == (5, 6, 3)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    assert (grey.min(), grey.max()) == (0, 255)


def test_constant_and_undefined_images_still_show():
    assert as_rgb(np.full((3, 3), 7.0)).max() == 0
    holed = np.array([[np.nan, 0.0], [1.0, np.inf]])
    assert as_rgb(holed)[0, 0, 0] == 0
    assert as_rgb(np.full((2, 2), np.nan)).shape == (2, 2, 3)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
def test_resize_invents_no_value(H, W, h, w):
    image = np.arange(H * W).reshape(H, W)
    resized = resize(image, (h, w))
    assert resized.shape == (h, w)
    assert np.isin(resized, image).all()
    if h >= H and w >= W:
        assert np.isin(image, resized).all()


def test_outline_by_hand():
    mask = np.ones((3, 5), bool)
    mask[1, 4] = False
    assert outline(mask).astype(int).tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert not outline(np.ones((3, 3), bool)).any()
