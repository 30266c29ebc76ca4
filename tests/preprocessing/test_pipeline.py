"""Steps of a spectral pipeline against numpy, scipy and pybaselines, and lists of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.spatial import ConvexHull
from torch import nn

from compseg.config import check_targets, compose, conf_dir
from compseg.errors import CompsegError
from compseg.inference.building import build_safe
from compseg.preprocessing import (
    AsymmetricLeastSquares,
    BandNorm,
    Bridge,
    Cut,
    MinimumNoiseFraction,
    Preprocess,
    PrincipalComponents,
    Resample,
    RubberBand,
    Vapour,
    fit_corrections,
    fit_standardisation,
)
from compseg.preprocessing.pipeline import count_after, with_axis
from compseg.samples import Channels
from compseg.training.resolve import resolve

AXIS = np.linspace(1800, 950, 86)  # 10 cm-1 apart
CHANNELS = Channels(len(AXIS), tuple(AXIS), "cm-1")
TISSUE = torch.ones(1, 3, 4, dtype=torch.bool)


def spectra(count: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bands = [h * np.exp(-(((AXIS - c) / w) ** 2)) for c, h, w in ((1650, 1.0, 30), (1550, 0.6, 25), (1080, 0.4, 40))]
    amounts = rng.uniform(0.3, 1.2, (count, 3))
    return amounts @ np.stack(bands) + rng.normal(0, 0.01, (count, len(AXIS))) + 0.2


def image_of(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).float().T.reshape(1, -1, 3, 4)


def applied(correction: nn.Module, values: np.ndarray) -> np.ndarray:
    return correction(image_of(values))[0].reshape(-1, len(values)).T.numpy()


def test_cut_keeps_the_ranges_in_the_order_of_the_axis():
    cut = Cut(AXIS, keep=[[1000, 1700]], drop=[[1340, 1490]])
    chosen = (AXIS >= 1000) & (AXIS <= 1700) & ~((AXIS >= 1340) & (AXIS <= 1490))
    np.testing.assert_allclose(applied(cut, spectra()), spectra()[:, chosen], rtol=1e-6)
    assert cut.wavenumbers_after == AXIS[chosen].tolist()


def test_bridge_is_numpys_line_between_the_ends():
    values, inside = spectra(), (AXIS >= 1500) & (AXIS <= 1600)
    expected = values.copy()
    for row in expected:
        row[inside] = np.interp(-AXIS[inside], -AXIS[~inside], row[~inside])
    np.testing.assert_allclose(applied(Bridge(AXIS, [[1600, 1500]]), values), expected, atol=1e-6)
    np.testing.assert_allclose(applied(Bridge(AXIS), values), values, atol=1e-6)  # no carbon dioxide on this axis


def test_vapour_comes_off_by_the_multiple_that_makes_the_spectrum_smoothest():
    values, vapour = spectra(), np.sin(AXIS * 1.3) + 0.5 * np.sin(AXIS * 0.7)
    inside = AXIS >= 1300

    def rough(amount: float, row: np.ndarray) -> float:
        return float((np.diff((row - amount * vapour)[inside]) ** 2).sum())

    expected = np.stack([row - minimize_scalar(rough, args=(row,)).x * vapour * inside for row in values])
    np.testing.assert_allclose(applied(Vapour(AXIS, vapour), values), expected, atol=1e-5)


@pytest.mark.parametrize("ends", [(1790, 960), (960, 1790), (1800, 950)])
def test_resample_is_numpys(ends):
    values, wanted = spectra(), np.linspace(*ends, 57)
    expected = np.stack([np.interp(-wanted, -AXIS, row) for row in values])
    np.testing.assert_allclose(applied(Resample(AXIS, *ends, 57), values), expected, atol=1e-6)
    rising = Resample(AXIS[::-1], *ends, 57)
    np.testing.assert_allclose(applied(rising, values[:, ::-1].copy()), expected, atol=1e-6)


def test_band_norm_divides_by_numpys_area():
    values, inside = spectra(), (AXIS >= 1600) & (AXIS <= 1700)
    area = np.trapezoid(values[:, ::-1][:, inside[::-1]], AXIS[::-1][inside[::-1]], axis=1)
    np.testing.assert_allclose(applied(BandNorm(AXIS), values), values / area[:, None], rtol=1e-5)
    assert not applied(BandNorm(AXIS), np.zeros((12, len(AXIS)))).any()


@pytest.mark.parametrize("direction", [1, -1])
def test_rubber_band_is_the_lower_half_of_scipys_convex_hull(direction):
    axis, values = AXIS[::direction], spectra()[:, ::direction] + 0.3 * np.sin(AXIS / 200)
    expected = []
    for row in values:
        corners = ConvexHull(np.stack([axis, row], 1)).vertices
        lower = [c for c in np.sort(corners) if c in (0, len(axis) - 1) or below(axis, row, c)]
        order = np.argsort(axis[lower])
        expected.append(row - np.interp(axis, axis[lower][order], row[lower][order]))
    np.testing.assert_allclose(applied(RubberBand(axis), values), expected, atol=1e-5)


def below(axis: np.ndarray, row: np.ndarray, corner: int) -> bool:
    return row[corner] < np.interp(axis[corner], *zip(*sorted([(axis[0], row[0]), (axis[-1], row[-1])]), strict=True))


def test_asymmetric_least_squares_is_that_of_pybaselines():
    whittaker = pytest.importorskip("pybaselines.whittaker", reason="pip install pybaselines")
    values = spectra()
    expected = [row - whittaker.asls(row, lam=1e4, p=0.02, max_iter=9, tol=-1)[0] for row in values]
    ours = AsymmetricLeastSquares(1e4, 0.02, iterations=10)
    np.testing.assert_allclose(applied(ours, values), expected, atol=1e-5)


def samples(*values: np.ndarray) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(image_of(each)[0], TISSUE) for each in values]


def test_principal_components_are_numpys_of_all_tissue():
    parts = spectra(seed=0), spectra(seed=1)
    kept, scores = PrincipalComponents(len(AXIS), 3), PrincipalComponents(len(AXIS), 3, scores=True)
    for each in (kept, scores):
        each.fit(samples(*parts))
    both = np.concatenate(parts)
    mean, vectors = both.mean(0), np.linalg.svd(both - both.mean(0))[2][:3]
    expected = (parts[1] - mean) @ vectors.T
    np.testing.assert_allclose(applied(kept, parts[1]), mean + expected @ vectors, atol=1e-5)
    np.testing.assert_allclose(np.abs(applied(scores, parts[1])[:, ::-1]), np.abs(expected), atol=1e-5)


def test_noise_fraction_is_the_generalised_eigenproblem_of_scipy():
    rng = np.random.default_rng(0)
    place = torch.arange(40.0)[:, None]
    smooth = torch.stack([torch.sin(place / 9 + phase) + place.T / 40 for phase in (0.0, 1.0, 2.0)])
    mixing = torch.from_numpy(rng.normal(size=(8, 3))).float()
    noise = torch.from_numpy(rng.normal(size=(8, 40, 40)) * np.linspace(0.05, 2, 8)[:, None, None]).float()
    image = torch.einsum("ck,khw->chw", mixing, smooth) + noise
    fraction = MinimumNoiseFraction(8, 3)
    fraction.fit([(image, torch.ones(1, 40, 40, dtype=torch.bool))])
    pixels, steps = image.reshape(8, -1).double().numpy(), image.diff(dim=2).reshape(8, -1).double().numpy() / 2**0.5
    noises = np.cov(steps, bias=True)
    vectors = eigh(np.cov(pixels, bias=True), noises)[1][:, -3:]
    mean = pixels.mean(1, keepdims=True)
    expected = mean + noises @ vectors @ vectors.T @ (pixels - mean)
    rebuilt = fraction(image[None])[0].reshape(8, -1)
    np.testing.assert_allclose(rebuilt, expected, atol=1e-3)
    clean = torch.einsum("ck,khw->chw", mixing, smooth).reshape(8, -1)
    assert (rebuilt - clean).square().mean() < 0.2 * (image.reshape(8, -1) - clean).square().mean()


def node(name: str, **arguments) -> dict:
    return {"_target_": f"compseg.preprocessing.{name}", **arguments}


def test_each_step_of_a_list_is_told_the_axis_that_the_ones_before_leave():
    nodes = [
        node("Cut", wavenumbers="auto", keep=[[1000, 1700]]),
        node("Detrend", channels="auto"),
        node("Resample", wavenumbers="auto", start=1690, stop=1010, count=40),
        node("EMSC", wavenumbers="auto"),
        node("PrincipalComponents", channels="auto", components=5, scores=True),
    ]
    filled, after = with_axis(nodes, CHANNELS, instantiate)
    corrections = [instantiate(each) for each in filled]
    assert (filled[1]["channels"], filled[4]["channels"], after.count, after.spectral) == (71, 40, 5, False)
    assert count_after(nn.Sequential(*corrections), CHANNELS.count) == 5
    preprocess = Preprocess(after.count, corrections)
    data = samples(spectra(seed=0), spectra(seed=1))
    fit_corrections(preprocess, lambda: data)
    fit_standardisation(preprocess, data)
    given = preprocess(data[0][0][None], TISSUE[None])
    assert given.shape == (1, 5, 3, 4)
    together = torch.cat([given, preprocess(data[1][0][None], TISSUE[None])], dim=3)
    torch.testing.assert_close(together.mean((0, 2, 3)), torch.zeros(5), atol=1e-4, rtol=0)
    again = Preprocess(after.count, [instantiate(each) for each in filled])
    again.load_state_dict(preprocess.state_dict())
    last = data[0][0][None].contiguous(memory_format=torch.channels_last)  # by strips
    torch.testing.assert_close(again(last, TISSUE[None]), given, atol=1e-4, rtol=1e-4)


def test_a_spectrum_may_lie_in_a_file(tmp_path):
    table = tmp_path / "matrigel.csv"
    table.write_text("wavenumber,absorbance\n" + "".join(f"{x:g},{x / 1000:g}\n" for x in np.arange(900, 1900, 20)))
    filled, _ = with_axis([node("EMSC", wavenumbers="auto", reference=str(table))], CHANNELS, instantiate)
    np.testing.assert_allclose(filled[0]["reference"], AXIS / 1000)


@pytest.mark.parametrize(
    ("given", "channels", "message"),
    [
        (node("RubberBand", wavenumbers="auto"), Channels(3, names=("r", "g", "b")), "needs a spectral axis"),
        (node("Cut", wavenumbers="auto", keep=[[3000, 2800]]), CHANNELS, "less than two of the 86 channels"),
        (node("Resample", wavenumbers="auto", start=2000, stop=1000, count=9), CHANNELS, "not within the 86"),
        (node("Bridge", wavenumbers="auto", ranges=[[1790, 1900]]), CHANNELS, "no channel beyond an end"),
        (node("BandNorm", wavenumbers="auto", band=[100, 200]), CHANNELS, "no channels of"),
        (node("EMSC", wavenumbers="auto", reference="absent.csv"), CHANNELS, "expected two columns"),
        (node("PrincipalComponents", channels="auto", components=99), CHANNELS, "expected 1 to 86"),
    ],
)
def test_what_does_not_fit_the_axis_ends_in_one_line(given, channels, message):
    def make(plain):
        try:
            return instantiate(plain)
        except Exception as error:
            raise error.__cause__ or error from error

    with pytest.raises(CompsegError, match=message):
        with_axis([given], channels, make)


def test_a_reference_that_does_not_cover_the_axis_is_refused(tmp_path):
    table = tmp_path / "short.csv"
    table.write_text("1700 0.5\n1000 0.1\n")
    with pytest.raises(CompsegError, match=r"short\.csv: does not cover 950 to 1800"):
        with_axis([node("EMSC", wavenumbers="auto", reference=str(table))], CHANNELS, instantiate)


@pytest.mark.parametrize("name", sorted(file.stem for file in (conf_dir() / "preprocess").glob("*.yaml")))
def test_every_pipeline_in_conf_is_resolved_for_a_spectral_cohort(name):
    cfg = compose("train", [f"preprocess={name}", "model.width=8", "trainer.accelerator=cpu"])
    infos = [SimpleNamespace(name=str(number), label=number % 2) for number in range(2)]
    cohort = SimpleNamespace(split=lambda _: infos, shape=lambda _: (3, 4, 86), channels=CHANNELS)
    made = resolve(cfg, cohort).cfg
    check_targets(made)
    preprocess = instantiate(made.preprocess)
    data = samples(spectra(seed=0), spectra(seed=1))
    fit_corrections(preprocess, lambda: data)
    fit_standardisation(preprocess, data)
    given = preprocess(data[0][0][None], TISSUE[None])
    assert given.shape[1] == made.channels == made.model.in_channels
    assert given.isfinite().all()
    assert build_safe(OmegaConf.to_container(made.preprocess, resolve=True), Preprocess, "", file_size=10**5)
