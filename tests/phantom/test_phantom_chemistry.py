"""Bands lie where the table says, and the instrument's formulas give what they should."""

from pathlib import Path

import numpy as np
import pytest

from compseg.phantom.anatomy import Grid, smooth_field
from compseg.phantom.bands import BANDS, COMPONENTS, TISSUES, component_spectra, profile, tissue_mixes
from compseg.phantom.optics import ArrayEffect, add_noise, extinction, sample_scatter, stain
from compseg.phantom.source import stream

FINE = np.arange(948.0, 1800.5, 0.5)


def test_profile_is_one_at_its_position_and_half_at_half_its_width():
    np.testing.assert_allclose(profile([1655, 1640, 1670], 1655, 30), [1, 0.5, 0.5])


@pytest.mark.parametrize("band", BANDS, ids=lambda band: f"{band.component}-{band.position}")
def test_every_band_shows_at_its_published_position(band):
    spectrum = component_spectra(FINE)[COMPONENTS.index(band.component)].astype(float)
    curvature = np.gradient(np.gradient(spectrum, FINE), FINE)
    near = np.flatnonzero(np.abs(FINE - band.position) <= 12)
    sharpest = FINE[near[curvature[near].argmin()]]
    assert abs(sharpest - band.position) <= 4  # neighbours pull a shoulder a little
    assert curvature[near].min() < 0


@pytest.mark.parametrize(
    ("tissue", "window", "position"),
    [("epithelium", (1600, 1700), 1652), ("muscle", (1500, 1590), 1545), ("lymphocytes", (1200, 1270), 1240)],
)
def test_tissue_maxima(tissue, window, position):
    spectrum = (tissue_mixes() @ component_spectra(FINE))[TISSUES.index(tissue)]
    inside = (window[0] <= FINE) & (window[1] >= FINE)
    assert abs(FINE[inside][spectrum[inside].argmax()] - position) <= 2


def test_a_shift_moves_the_bands_of_its_component_alone():
    shifts = np.zeros(len(COMPONENTS))
    shifts[COMPONENTS.index("lipid")] = 4
    moved, still = component_spectra(FINE, shifts), component_spectra(FINE)
    lipid = COMPONENTS.index("lipid")
    assert FINE[moved[lipid].argmax()] == pytest.approx(1744, abs=0.5)
    np.testing.assert_array_equal(np.delete(moved, lipid, 0), np.delete(still, lipid, 0))


def test_tumour_differs_moderately_from_epithelium_and_difficulty_divides_the_difference():
    mixes, harder = tissue_mixes(), tissue_mixes(2)
    tumour, epithelium = TISSUES.index("tumour"), TISSUES.index("epithelium")
    np.testing.assert_allclose(harder[tumour] - harder[epithelium], (mixes[tumour] - mixes[epithelium]) / 2, atol=1e-7)
    np.testing.assert_array_equal(np.delete(mixes, tumour, 0), np.delete(harder, tumour, 0))
    change = dict(zip(COMPONENTS, mixes[tumour] - mixes[epithelium], strict=True))
    assert change["nucleic"] > 0 > max(change["glycogen"], change["mucin"], change["lipid"])
    spectra = mixes @ component_spectra(FINE)
    assert -2 <= FINE[spectra[tumour].argmax()] - FINE[spectra[epithelium].argmax()] <= -1
    assert np.corrcoef(spectra[tumour], spectra[epithelium])[0, 1] > 0.98


def test_extinction_agrees_with_van_de_hulst():
    # at rho = pi the formula is 2 + 8 / pi^2; it is rho^2 / 2 for small rho
    radius, index = 5.0, 1.25
    at_pi = np.pi / (4 * np.pi * radius * 1e-4 * (index - 1))
    assert extinction(np.array([at_pi]), radius, index)[0] == pytest.approx(2 + 8 / np.pi**2)
    assert extinction(np.array([at_pi / 100]), radius, index)[0] == pytest.approx((np.pi / 100) ** 2 / 2, rel=1e-3)


def test_scatter_is_stronger_at_edges_and_absent_off_the_tissue():
    grid = Grid.of(128)
    tissue = np.hypot(grid.x, grid.y) < 0.4
    rim = tissue & (np.hypot(grid.x, grid.y) > 0.385)
    strengths, curves = sample_scatter(stream(0, 4, 0), grid, tissue, FINE[::-1])
    assert not strengths[~tissue].any()
    assert strengths[rim].mean() > 2 * strengths[np.hypot(grid.x, grid.y) < 0.3].mean()
    np.testing.assert_allclose(curves.mean(1), 1, rtol=1e-5)


def test_array_effect_follows_its_formula():
    cube = np.full((1, 1, 3), 0.5, dtype=np.float32)
    ArrayEffect(gain=2, tilt=0.1, offset=0.3, slope=0.01, bend=0.2).apply(cube)
    np.testing.assert_allclose(cube[0, 0], [1.1 + 0.3 + 0.01 + 0.2, 1.3, 0.9 + 0.3 - 0.01 + 0.2], rtol=1e-6)


def test_noise_level_doubles_along_the_axis():
    cube = np.zeros((200, 200, 3), dtype=np.float32)
    add_noise(np.random.default_rng(0), cube, 0.02)
    np.testing.assert_allclose(cube.std((0, 1)), [0.02, 0.03, 0.04], rtol=0.02)


def test_stain_is_white_on_glass_and_bluer_where_nuclei_are():
    content = np.zeros((2, 50, len(COMPONENTS)), dtype=np.float32)
    content[1, :, COMPONENTS.index("nucleic")] = 0.3
    picture = stain(np.random.default_rng(0), content)
    assert (picture[0] == 255).all()
    assert picture[1, :, 2].mean() > picture[1, :, 0].mean()


def test_a_field_is_the_same_at_every_size():
    small, large = (smooth_field(np.random.default_rng(3), Grid.of(size), 0.2) for size in (32, 96))
    np.testing.assert_allclose(large[1::3, 1::3], small, atol=1e-5)


def test_the_documented_table_is_the_one_in_use():
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "phantom.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|") and line.split("|")[1].strip() in COMPONENTS]
    assert rows == [f"| {b.component} | {b.position:g} | {b.assignment} | {b.source} |" for b in BANDS]
