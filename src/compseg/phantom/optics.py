"""What an instrument makes of the chemistry (thickness, scattering, array effects, noise), and a stained picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.signal import hilbert

from compseg.phantom.anatomy import Grid, smooth_field
from compseg.phantom.bands import COMPONENTS, Floats
from compseg.samples import Mask

# Optical density of each stain in red, green and blue: Ruifrok and Johnston, Quantification of histochemical staining
# by color deconvolution, Analytical and Quantitative Cytology and Histology 23:291-299 (2001).
_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.07, 0.99, 0.11)
_EOSIN_UPTAKE = {"helix": 0.22, "sheet": 0.22, "collagen": 0.30}


@dataclass(frozen=True)
class ArrayEffect:
    """What all spots of one array share, with u from -1 at the last channel to 1 at the first.

    A pixel of absorbance A is measured as `gain * (1 + tilt * u) * A + offset + slope * u + bend * u**2`.

    Attributes:
        gain: Factor on the absorbance.
        tilt: Linear change of the gain along the axis.
        offset: Added absorbance.
        slope: Added absorbance that is linear along the axis.
        bend: Added absorbance that is quadratic along the axis.
        shift: Error of the wavenumber axis in cm-1; bands appear this much higher.
    """

    gain: float = 1.0
    tilt: float = 0.0
    offset: float = 0.0
    slope: float = 0.0
    bend: float = 0.0
    shift: float = 0.0

    def apply(self, cube: Floats) -> None:
        """Change a cube `(H, W, C)` in place."""
        u = np.linspace(1, -1, cube.shape[-1], dtype=np.float32)
        cube *= self.gain * (1 + self.tilt * u)
        cube += self.offset + self.slope * u + self.bend * u**2


def sample_thickness(rng: Generator, grid: Grid, variation: float) -> Floats:
    """Thickness of the section `(H, W)` relative to the mean, log-normal: a number for the spot, a smooth field inside.

    Args:
        rng: Random numbers.
        grid: The pixels.
        variation: Standard deviation of the logarithm between spots; inside a spot it is half of that.
    """
    between = rng.normal(0, variation)
    return np.asarray(np.exp(between + variation / 2 * smooth_field(rng, grid, 0.25)), dtype=np.float32)


def extinction(wavenumbers: NDArray[np.floating], radius: float, index: float) -> NDArray[np.float64]:
    """Extinction efficiency of a sphere, `(C,)`, in van de Hulst's approximation as Kohler et al. use it for tissue.

    `Q = 2 - 4 / rho * sin(rho) + 4 / rho**2 * (1 - cos(rho))` with `rho = 4 pi r (n - 1) nu`. Kohler et al., Estimating
    and correcting Mie scattering in synchrotron-based microscopic Fourier transform infrared spectra by extended
    multiplicative signal correction, Applied Spectroscopy 62:259-266 (2008), doi 10.1366/000370208783759669.

    Args:
        wavenumbers: `(C,)` in cm-1.
        radius: r in micrometres.
        index: n, the sphere's refractive index over that of its surroundings.
    """
    rho = 4 * np.pi * (radius * 1e-4) * (index - 1) * np.asarray(wavenumbers, dtype=np.float64)
    return np.asarray(2 - 4 / rho * np.sin(rho) + 4 / rho**2 * (1 - np.cos(rho)))


def resonant_extinction(
    wavenumbers: NDArray[np.floating], absorbance: NDArray[np.floating], radius: float, index: float
) -> NDArray[np.float64]:
    """Extinction efficiency of spheres that absorb, `(n, C)`: bands move and become dispersive in it.

    Van de Hulst's formula for absorbing spheres, where absorption and, by the Kramers-Kronig relation, dispersion
    belong to the refractive index. Bassan et al., Resonant Mie scattering (RMieS) correction of infrared spectra from
    highly scattering biological samples, Analyst 135:268-277 (2010), doi 10.1039/b921056c.

    Args:
        wavenumbers: `(C,)` in cm-1, evenly spaced, falling.
        absorbance: Of what the spheres are made of, `(n, C)`; a path of pi r / 2 through one has a quarter of it.
        radius: r in micrometres.
        index: Real refractive index, over that of the surroundings.
    """
    nu, r = np.asarray(wavenumbers, dtype=np.float64) * 100, radius * 1e-6
    # Continued with its ends, up to half of the lowest wavenumber, so that the transform sees no steps there.
    beyond = int(nu[-1] / 2 / (nu[0] - nu[1]))
    axis = nu[0] + (nu[1] - nu[0]) * np.arange(-beyond, len(nu) + beyond)
    continued = np.pad(np.asarray(absorbance, dtype=np.float64), ((0, 0), (beyond, beyond)), mode="edge")
    scale = 0.25 * np.log(10) / (2 * np.pi**2 * r) / (index - 1)
    extinct = scale * continued / axis
    refract = 1 + scale * hilbert(continued / axis).imag
    inside = slice(beyond, beyond + len(nu))
    tangent, rho = (extinct / refract)[:, inside], 4 * np.pi * r * (index - 1) * refract[:, inside] * nu
    beta, share = np.arctan(tangent), np.cos(np.arctan(tangent)) / rho
    damped = np.exp(-rho * tangent)
    waves = share * np.sin(rho - beta) + share**2 * np.cos(rho - 2 * beta)
    return np.asarray(2 - 4 * damped * waves + 4 * share**2 * np.cos(2 * beta))


def sample_scatter(
    rng: Generator, grid: Grid, tissue: Mask, wavenumbers: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Scattering by two kinds of sphere, each with a strength of its own in every pixel, four times as much at edges.

    Returns:
        Strengths `(H, W, 2)`, zero off the tissue, and extinctions `(2, C)`, each of mean 1 along the axis.
    """
    depth = distance_transform_edt(tissue) / grid.size
    edge = np.where(tissue, 1 + 3 * np.exp(-depth / 0.015), 0)
    strengths = [edge * np.exp(0.4 * smooth_field(rng, grid, 0.12)) for _ in range(2)]
    curves = [extinction(wavenumbers, radius, rng.uniform(1.2, 1.4)) for radius in rng.uniform((2, 6), (5, 9))]
    # Of mean 1, so that `scatter` is the mean absorbance that a kind of sphere adds, at any radius and index.
    scaled = [curve / curve.mean() for curve in curves]
    return np.stack(strengths, axis=-1).astype(np.float32), np.stack(scaled).astype(np.float32)


def add_noise(rng: Generator, cube: Floats, level: float) -> None:
    """Add white noise to a cube `(H, W, C)` in place: `level` at the first channel, rising to twice that at the last.

    An instrument has less light at low wavenumbers.
    """
    # In float32 from the first: in float64 it would take twice the spot's own memory.
    noise = rng.standard_normal(cube.shape, dtype=np.float32)
    noise *= level * np.linspace(1, 2, cube.shape[-1], dtype=np.float32)
    cube += noise


def stain(rng: Generator, content: Floats) -> NDArray[np.uint8]:
    """Haematoxylin on nucleic acid in grains, eosin on protein: `(H, W, 3)` uint8, white on bare glass.

    Args:
        rng: Random numbers for the grains.
        content: Amounts of the components, `(H, W, K)` in the order of `COMPONENTS`.
    """
    grain = rng.gamma(2.0, 0.5, content.shape[:2])
    haematoxylin = 2.2 * content[..., COMPONENTS.index("nucleic")] * grain
    eosin = sum(uptake * content[..., COMPONENTS.index(name)] for name, uptake in _EOSIN_UPTAKE.items())
    density = np.multiply.outer(haematoxylin, _HAEMATOXYLIN) + np.multiply.outer(eosin, _EOSIN)
    return np.asarray(np.round(255 * 10 ** (-density)), dtype=np.uint8)
