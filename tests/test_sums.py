import numpy as np
import pytest
import torch

from compseg.sums import STRIP, channel_sums, part_means


@pytest.mark.parametrize("dtype", ["float16", ">f2", "float32", "float64", "uint8", "uint16", "int32"])
def test_sums_are_those_of_numpy(dtype):
    image = np.random.default_rng(0).integers(0, 200, (13, 7, 5)).astype(dtype)[:, ::-1]
    image.setflags(write=False)
    parts = slice(0, 2), slice(2, 5)
    expected = [image[..., part].sum(2, dtype=np.float64) for part in parts]
    np.testing.assert_array_equal(channel_sums(image, parts), expected)
    np.testing.assert_array_equal(channel_sums(image)[0], image.sum(2, dtype=np.float64))


@pytest.mark.parametrize("tensor", [False, True])
def test_means_of_parts_in_several_strips_look_at_no_other_pixel(tensor):
    generator, count = np.random.default_rng(0), 2 * STRIP // 50 + 3
    spectra = generator.normal(3, 1, (count, 50)).astype(np.float32)
    place = generator.integers(0, 3, count)
    expected = np.array([spectra[place == part].mean(0, dtype=np.float64) for part in (0, 1)])
    spectra[place == 2] = np.nan
    found = part_means(torch.from_numpy(spectra) if tensor else spectra, [place == part for part in range(2)])
    np.testing.assert_allclose(found, expected, rtol=3e-6)
    assert found.dtype == np.float32


def test_the_mean_of_no_pixel_is_nan():
    nothing, everything = np.zeros(3, bool), np.ones(3, bool)
    found = part_means(np.ones((3, 2), np.float16), [nothing, everything])
    np.testing.assert_array_equal(found, [[np.nan] * 2, [1, 1]])
    assert np.isnan(part_means(np.ones((3, 2)), [nothing])).all()
