from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy.signal import savgol_filter

from compseg.preprocessing import (
    Derivative,
    Detrend,
    Preprocess,
    StandardNormalVariate,
    VectorNorm,
    fit_standardisation,
)
from compseg.samples import Channels
from compseg.training.resolve import corrections_for


def cube(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(3, 2, shape).astype("f4"))


def test_snv_against_numpy():
    image = cube(2, 9, 4, 5)
    spectra = image.numpy()
    expected = (spectra - spectra.mean(1, keepdims=True)) / spectra.std(1, keepdims=True)
    np.testing.assert_allclose(StandardNormalVariate()(image).numpy(), expected, atol=1e-5)


def test_snv_removes_offset_and_thickness_and_leaves_background_finite():
    image = cube(1, 9, 3, 3)
    torch.testing.assert_close(
        StandardNormalVariate()(image * 4 + 7), StandardNormalVariate()(image), atol=1e-4, rtol=1e-4
    )
    assert StandardNormalVariate()(torch.zeros(1, 9, 3, 3)).abs().max() == 0


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_detrend_leaves_the_residual_of_a_polynomial_fit(degree: int):
    image = cube(2, 30, 3, 4)
    axis, spectra = np.arange(30), image.numpy().astype("f8")
    columns = spectra.transpose(1, 0, 2, 3).reshape(30, -1)
    fit = np.polynomial.Polynomial.fit
    residual = np.stack([column - fit(axis, column, degree)(axis) for column in columns.T], axis=1)
    expected = residual.reshape(30, 2, 3, 4).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(Detrend(30, degree)(image).numpy(), expected, atol=1e-5)


def test_detrend_and_snv_remove_baseline_and_thickness():
    image, axis = cube(1, 40, 3, 3), torch.linspace(1800, 948, 40)[None, :, None, None] / 1000
    both = torch.nn.Sequential(Detrend(40), StandardNormalVariate())
    torch.testing.assert_close(both(1.7 * image + 3 - 2 * axis + axis**2), both(image), atol=1e-4, rtol=1e-4)


def test_detrend_refuses_a_polynomial_that_fits_everything():
    with pytest.raises(ValueError, match="less than the 4 channels"):
        Detrend(4, degree=4)


def test_vector_norm_has_unit_length():
    assert torch.allclose(VectorNorm()(cube(1, 7, 3, 3)).norm(dim=1), torch.ones(1, 3, 3))


@pytest.mark.parametrize(("order", "window", "degree"), [(1, 13, 4), (2, 11, 3), (1, 5, 2)])
def test_derivative_against_scipy(order: int, window: int, degree: int):
    image = cube(1, 40, 2, 3)
    expected = savgol_filter(image.numpy().astype("f8"), window, degree, deriv=order, axis=1, mode="nearest")
    np.testing.assert_allclose(Derivative(order, window, degree)(image).numpy(), expected, atol=2e-4)


def test_derivative_refuses_an_even_window():
    with pytest.raises(ValueError, match="odd"):
        Derivative(window=12)


def test_standardisation_is_that_of_all_tissue_pixels():
    samples = [
        (cube(5, 6, 7, seed=k) + 1000 * k, torch.rand(1, 6, 7, generator=torch.Generator().manual_seed(k)) > 0.4)
        for k in range(4)
    ]
    preprocess = Preprocess(5)
    fit_standardisation(preprocess, iter(samples))
    pixels = np.concatenate([image.numpy()[:, tissue[0].numpy()] for image, tissue in samples], axis=1).astype("f8")
    np.testing.assert_allclose(preprocess.mean, pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(preprocess.std, pixels.std(1), rtol=1e-6)


def test_a_sample_without_tissue_and_a_constant_channel_do_no_harm():
    image = torch.ones(2, 3, 3)
    preprocess = Preprocess(2)
    fit_standardisation(
        preprocess,
        [(image * 9, torch.zeros(1, 3, 3, dtype=torch.bool)), (image, torch.ones(1, 3, 3, dtype=torch.bool))],
    )
    assert preprocess.mean.tolist() == [1, 1]
    assert preprocess.std.tolist() == [1, 1]


def test_background_is_zero_whatever_it_held():
    image = cube(1, 4, 3, 3)
    image[..., 0, 0] = float("nan")
    tissue = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    tissue[..., 0, 0] = False
    out = Preprocess(4, [StandardNormalVariate()])(image, tissue)
    assert out[..., 0, 0].abs().max() == 0
    assert out.isfinite().all()


def test_state_travels_in_the_state_dict():
    fitted = Preprocess(5, [Derivative(window=5, degree=2)])
    fit_standardisation(fitted, [(cube(5, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))])
    other = Preprocess(5, [Derivative(window=5, degree=2)])
    other.load_state_dict(fitted.state_dict())
    image, tissue = cube(1, 5, 4, 4, seed=3), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert torch.equal(other(image, tissue), fitted(image, tissue))


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (Channels(32, values=tuple(np.linspace(1800, 948, 32)), unit="cm-1"), ["Detrend", "StandardNormalVariate"]),
        (Channels(8, values=tuple(np.linspace(1800, 948, 8)), unit="cm-1"), ["StandardNormalVariate"]),
        (Channels(3, names=("red", "green", "blue")), []),
    ],
)
def test_auto_corrects_spectra_alone_and_takes_no_baseline_off_short_ones(channels: Channels, names: list[str]):
    corrections, _ = corrections_for(channels)
    assert [node["_target_"].split(".")[-1] for node in corrections] == names
    preprocess = instantiate(
        {"_target_": "compseg.preprocessing.Preprocess", "channels": channels.count, "corrections": corrections}
    )
    image = cube(1, channels.count, 4, 4)
    assert preprocess(image, torch.ones(1, 1, 4, 4, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize("corrections", [[], [StandardNormalVariate()], [Detrend(9), Derivative(window=5)]])
def test_strips_of_pixels_give_what_the_whole_image_gives(corrections, monkeypatch):
    """Pixels that lie one after the other go through the cache a few at a time; other layouts at once."""
    monkeypatch.setattr("compseg.preprocessing.preprocess.STRIP", 7 * 9)
    preprocess = Preprocess(9, corrections)
    preprocess.mean.normal_()
    preprocess.std.uniform_(0.5, 2)
    image = cube(2, 5, 6, 9).permute(0, 3, 1, 2)
    tissue = cube(2, 1, 5, 6, seed=1) > 3
    tissue[1] = True  # one pixel after the other, which are read and written as a slice
    image[:, :, 0] = torch.where(tissue[:, :, 0], image[:, :, 0], torch.nan)
    strips, whole = preprocess(image, tissue), preprocess(image.contiguous(), tissue)
    torch.testing.assert_close(strips, whole, rtol=1e-5, atol=1e-5)
    assert strips.is_contiguous(memory_format=torch.channels_last)
    assert not strips[(~tissue).expand_as(strips)].any()
    assert preprocess(image.requires_grad_(), tissue).requires_grad


def test_the_network_input_lies_in_the_memory_of_the_one_before_unless_that_is_held():
    preprocess, tissue = Preprocess(3), torch.ones(1, 1, 4, 5, dtype=torch.bool)
    images = [cube(1, 4, 5, 3, seed=seed).permute(0, 3, 1, 2) for seed in range(4)]
    first = preprocess(images[0], tissue)
    second = preprocess(images[1], tissue)
    torch.testing.assert_close(first, images[0])
    torch.testing.assert_close(second, images[1])
    part, place = second[..., :2], second.data_ptr()
    del second
    third = preprocess(images[2], tissue)
    assert third.data_ptr() != place
    torch.testing.assert_close(part, images[1][..., :2])
    place = third.data_ptr()
    del third
    fourth = copy.deepcopy(preprocess)(images[3], tissue), preprocess(images[3], tissue)
    assert fourth[0].data_ptr() != fourth[1].data_ptr() == place
    torch.testing.assert_close(fourth[0], fourth[1])
