"""Windows of images that stay in their files are those of the whole image."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import tifffile

from compseg.errors import CompsegError
from compseg.sources.on_disk import OnDisk
from compseg.sources.readers import read_file

WINDOWS = [np.s_[2:7, 1:4], np.s_[::3, ::2], np.s_[1:8:3, :], np.s_[5:5, :], np.s_[3:]]
CUBE = np.arange(9 * 6 * 4, dtype=np.uint16).reshape(9, 6, 4)


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_any_order_of_axes_and_either_direction_of_rows(tmp_path, order, upwards):
    stored = (CUBE[::-1] if upwards else CUBE).transpose(np.argsort(order))
    image = OnDisk(tmp_path, lambda: stored, order, upwards)
    assert (image.shape, image.dtype, len(image), image.size) == (CUBE.shape, CUBE.dtype, 9, CUBE.size)
    np.testing.assert_array_equal(np.asarray(image), CUBE)
    for window in WINDOWS:
        np.testing.assert_array_equal(image[window], CUBE[window])


def test_an_axis_of_depth_and_none_of_channels(tmp_path):
    image = OnDisk(tmp_path, lambda: CUBE.transpose(2, 0, 1)[:, None], (2, 3))
    np.testing.assert_array_equal(image[1:3, 2:], CUBE[1:3, 2:, :1])
    np.testing.assert_array_equal(np.asarray(image), CUBE[..., 0])


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (CUBE.transpose(2, 0, 1), {"photometric": "minisblack"}),
        (CUBE[..., :3].astype(np.uint8), {"photometric": "rgb", "tile": (16, 16), "compression": "deflate"}),
        (CUBE[..., 0], {"photometric": "minisblack", "rowsperstrip": 2}),
        (CUBE.transpose(2, 0, 1), {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}}),
        (CUBE[..., 0], {"photometric": "miniswhite"}),  # means something else than it holds: read whole
    ],
)
def test_large_tiffs(tmp_path, monkeypatch, array, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, **options)
    whole = read_file(path)
    monkeypatch.setattr("compseg.sources.pictures.LARGE", 0)
    found = read_file(path, mapped=True)
    assert isinstance(found.image, OnDisk) == (options["photometric"] != "miniswhite")
    assert found.channels == whole.channels
    for window in WINDOWS[:3]:
        np.testing.assert_array_equal(found.image[window], whole.image[window])
    np.testing.assert_array_equal(read_file(path).image, whole.image)


def test_a_file_that_is_damaged_later_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("compseg.sources.pictures.LARGE", 0)
    tifffile.imwrite(tmp_path / "a.tif", CUBE[..., 0], photometric="minisblack")
    image = read_file(tmp_path / "a.tif", mapped=True).image
    (tmp_path / "a.tif").write_bytes(b"II")
    with pytest.raises(CompsegError, match=r"a\.tif: .*copy it again"):
        image[:2, :2]
