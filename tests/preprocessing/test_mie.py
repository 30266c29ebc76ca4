"""Resonant Mie correction and EMSC against the code of the group that published them, and against known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compseg.phantom.optics import resonant_extinction
from compseg.preprocessing import EMSC, ResonantMie
from compseg.preprocessing.mie import dispersion

SECTION = Path(__file__).parents[3] / "shared/data/ftir/tissue_cube.npz"
AXIS = np.linspace(1800, 948, 285)


def absorbance(axis=AXIS, moved: float = 0.0) -> np.ndarray:
    """A spectrum of four bands, as of tissue, without scattering."""
    bands = ((1655 + moved, 0.8, 25), (1545, 0.5, 22), (1450, 0.2, 20), (1080, 0.3, 30))
    return sum(height * np.exp(-(((axis - place) / width) ** 2)) for place, height, width in bands) + 0.05


def scattered(count: int, axis=AXIS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Absorbances `(count, C)`, and what an instrument shows of them: with extinction by spheres, and some noise."""
    rng = np.random.default_rng(seed)
    pure = np.stack([absorbance(axis, rng.normal(0, 0.5)) * rng.uniform(0.7, 1.2) for _ in range(count)])
    falling = slice(None, None, 1 if axis[0] > axis[-1] else -1)
    spheres = zip(rng.uniform(2.2, 6.5, count), rng.uniform(1.12, 1.37, count), strict=True)
    curves = [
        resonant_extinction(axis[falling], row[None, falling], *each) for row, each in zip(pure, spheres, strict=True)
    ]
    some = np.concatenate(curves)[:, falling]
    return pure, pure + rng.uniform(0.05, 0.3, (count, 1)) * some + rng.normal(0, 5e-4, pure.shape)


def reference_code():
    return pytest.importorskip("biospectools.preprocessing.me_emsc", reason="pip install biospectools==0.4.0")


def compared(spectra: np.ndarray, axis: np.ndarray, reference: np.ndarray, components: int | None) -> np.ndarray:
    """Relative differences `(n,)` from the reference implementation, whose iterations must be as many."""
    theirs = reference_code().MeEMSC(reference.copy(), axis, n_components=components)
    theirs.mie_decomposer.svd.random_state = 0
    expected, details = theirs.transform(spectra, details=True)
    ours = ResonantMie(axis, reference, components=components)
    fit = ours.correct(torch.from_numpy(spectra).float())
    assert ours.components == theirs.mie_decomposer.n_components
    assert fit.iterations.tolist() == details.n_iterations.tolist()
    assert fit.converged.all()
    np.testing.assert_allclose(fit.rmse, details.rmses, rtol=0.02, atol=1e-5)
    return np.linalg.norm(fit.spectra.numpy() - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize(("components", "descending"), [(6, True), (None, False)])
def test_mie_correction_is_that_of_the_reference_implementation(components, descending):
    axis = AXIS if descending else AXIS[::-1]
    assert compared(scattered(3, axis)[1], axis, absorbance(axis), components).max() < 1e-3


@pytest.mark.realdata
@pytest.mark.skipif(not SECTION.is_file(), reason="no measured section beside the checkout")
@pytest.mark.parametrize(("components", "every"), [(7, 100), (None, 600)])
def test_on_measured_spectra_too(components, every):
    """Also where so little of the reference is left that the correction divides by nearly nothing."""
    measured = np.load(SECTION)
    axis, spectra = measured["wavenumbers"].astype(float), measured["cube"].reshape(-1, 427).astype(float)
    amide = spectra[:, np.abs(axis - 1655).argmin()]
    tissue = spectra[amide > np.quantile(amide, 0.3)]
    assert compared(tissue[::every], axis, tissue.mean(0), components).max() < 1e-3


def test_dispersion_is_the_kramers_kronig_transform_of_a_lorentzian_band():
    """Of a narrow band `w / (x**2 + w**2)` it is `x / (x**2 + w**2)`, on this axis with its sign."""
    axis = np.linspace(3000, 1000, 1001) * 100
    offset, width = axis - 2e5, 2e3
    band = width**2 / (offset**2 + width**2)
    expected = -offset * width / (offset**2 + width**2)
    middle = slice(300, 700)
    np.testing.assert_allclose((band @ dispersion(axis))[middle], expected[middle], atol=0.03)


def test_spectra_beyond_the_series_are_corrected_by_the_formula(monkeypatch):
    spectra = torch.from_numpy(scattered(2)[1]).float()
    series = ResonantMie(AXIS, absorbance(), components=6, iterations=3).correct(spectra)
    monkeypatch.setattr("compseg.preprocessing.mie.ROOM", 0.1)
    formula = ResonantMie(AXIS, absorbance(), components=6, iterations=3).correct(spectra)
    torch.testing.assert_close(series.spectra, formula.spectra, rtol=1e-3, atol=1e-4)
    assert torch.equal(series.iterations, formula.iterations)


def test_blocks_and_threads_change_nothing(monkeypatch):
    spectra = torch.from_numpy(scattered(9)[1]).float()
    correction = ResonantMie(AXIS, absorbance(), components=5, iterations=4)
    whole = correction.correct(spectra)
    monkeypatch.setattr("compseg.preprocessing.mie.BLOCK", 4)
    monkeypatch.setattr("compseg.preprocessing.mie.AT_ONCE", {"cpu": 2})
    before = torch.get_num_threads()
    parts = correction.correct(spectra)
    assert torch.get_num_threads() == before
    torch.testing.assert_close(parts.spectra, whole.spectra, rtol=1e-4, atol=1e-5)
    assert torch.equal(parts.iterations, whole.iterations)


def test_empty_spectra_become_zero_and_say_so():
    spectra = torch.from_numpy(scattered(3)[1]).float()
    spectra[1] = 0
    image = spectra.T.reshape(1, -1, 1, 3)
    correction = ResonantMie(AXIS, absorbance(), iterations=3)
    assert not correction(image)[0, :, 0, 1].any()
    fit = correction.correct(spectra)
    assert not fit.converged[1]
    assert fit.spectra[[0, 2]].isfinite().all()


def test_known_scattering_comes_off_better_than_by_emsc():
    pure, measured = scattered(40, seed=3)
    scaled = EMSC(AXIS, absorbance().tolist())  # thickness is not what is compared
    image = torch.from_numpy(measured).float().T.reshape(1, -1, 1, 40)
    truth = scaled(torch.from_numpy(pure).float().T.reshape(1, -1, 1, 40))

    def error(corrected: torch.Tensor) -> float:
        return float((scaled(corrected) - truth).square().mean().sqrt())

    assert error(ResonantMie(AXIS, absorbance())(image)) < 0.5 * error(image)


@pytest.mark.parametrize("degree", [0, 2])
def test_emsc_is_that_of_the_reference_implementation(degree):
    theirs = pytest.importorskip("biospectools.preprocessing", reason="pip install biospectools==0.4.0")
    spectra, vapour = scattered(12)[1], np.sin(AXIS)[None]
    expected = theirs.EMSC(absorbance(), AXIS, degree, interferents=vapour).transform(spectra)
    ours = EMSC(AXIS.tolist(), absorbance().tolist(), degree, vapour.tolist())
    image = torch.from_numpy(spectra).float().T.reshape(1, -1, 3, 4)
    np.testing.assert_allclose(ours(image).reshape(-1, 12).T, expected, atol=2e-6)
    np.testing.assert_allclose(ours.correct_pixels_(torch.from_numpy(spectra).float()), expected, atol=2e-6)


def test_emsc_takes_the_mean_of_the_tissue_and_keeps_it():
    spectra = torch.from_numpy(scattered(12)[1]).float()
    image = spectra.T.reshape(-1, 3, 4)
    tissue = torch.arange(12).reshape(1, 3, 4) < 7
    fitted, other = EMSC(AXIS.tolist()), EMSC(AXIS.tolist())
    fitted.fit([(image, tissue), (image, torch.zeros_like(tissue))])
    torch.testing.assert_close(fitted.reference, spectra[:7].mean(0))
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other(image[None]), fitted(image[None]))
