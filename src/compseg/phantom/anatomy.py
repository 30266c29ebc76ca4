"""The tissues in a round spot of a tissue microarray: outline, crypts, muscle, lymphocytes, tumour.

All lengths are fractions of the image's side and random fields come from coarse grids, so a seed gives the same spot
at every size. Healthy tissue and tumour come from independent random streams: a disease spot is a healthy spot with
tumour painted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from compseg.phantom.bands import TISSUES, Floats
from compseg.samples import Mask

BLUR = 0.006  # of the side: about one wavelength where 256 pixels span a spot of 1 mm


@dataclass(frozen=True)
class Grid:
    """Pixel centres `x` and `y`, `(H, W)` each, as fractions of the side, 0 in the middle."""

    size: int
    x: Floats
    y: Floats

    @classmethod
    def of(cls, size: int) -> Grid:
        """The grid of a square image of `size` pixels a side."""
        axis = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
        x, y = np.meshgrid(axis, axis)
        return cls(size, x, y)


def smooth_field(rng: Generator, grid: Grid, length: float) -> Floats:
    """A smooth random field, `(H, W)`, about zero mean and unit variance.

    Args:
        rng: Random numbers, as many at every size.
        grid: The pixels.
        length: Distance over which it changes, as a fraction of the side.
    """
    # Knots do not depend on `size`, so that a spot is the same one at every size.
    cells = int(np.ceil(1 / length)) + 4  # a margin for cubic interpolation at the border
    knots = rng.standard_normal((cells, cells))
    points = np.stack([grid.y, grid.x]) / length + (cells - 1) / 2
    return np.asarray(map_coordinates(knots, points, order=3, mode="nearest") * 1.4, dtype=np.float32)


def sample_outline(rng: Generator, grid: Grid, scale: float = 1.0) -> Mask:
    """The tissue mask `(H, W)` of a round spot with a rough border and holes.

    Args:
        rng: Random numbers.
        grid: The pixels.
        scale: Factor on the spot's radius, which is .38 to .45 of the side.
    """
    angle, distance = np.arctan2(grid.y, grid.x), np.hypot(grid.x, grid.y)
    radius = rng.uniform(0.38, 0.45) * scale * (1 + 0.02 * smooth_field(rng, grid, 0.05))
    for order in (2, 3, 4):
        radius = radius * (1 + rng.normal(0, 0.03) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)))
    torn = np.zeros(distance.shape, dtype=bool)
    for _ in range(rng.poisson(1.5)):
        torn |= _ellipse(rng, grid, scale) < 1
    return np.asarray((distance < radius) & ~torn)


def _ellipse(rng: Generator, grid: Grid, scale: float) -> NDArray[np.float32]:
    """Squared distance from the middle of a small random ellipse, 1 on its border, `(H, W)`."""
    # The root spreads the ellipses evenly over the area of the disc; without it they would crowd in the middle.
    distance, tilt, angle = 0.36 * scale * np.sqrt(rng.uniform()), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    x, y = grid.x - distance * np.cos(angle), grid.y - distance * np.sin(angle)
    along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    long, thin = rng.uniform(0.03, 0.07), rng.uniform(0.015, 0.035)
    return np.asarray((along / long) ** 2 + (across / thin) ** 2)


def sample_tissues(rng: Generator, grid: Grid, outline: Mask) -> Floats:
    """Abundances of the healthy tissues, `(H, W, T)` in the order of `TISSUES`, that sum to 1 in every pixel."""
    abundance = np.zeros((*outline.shape, len(TISSUES)), dtype=np.float32)
    abundance[..., TISSUES.index("stroma")] = 1
    paint(abundance, "lymphocytes", 0.12 * np.clip(1 + smooth_field(rng, grid, 0.05), 0, 3))
    muscle = _sample_muscle(rng, grid, outline)
    epithelium, lumen = _sample_crypts(rng, grid, outline, muscle)
    paint(abundance, "muscle", muscle)
    paint(abundance, "epithelium", epithelium)
    paint(abundance, "mucus", lumen)
    for _ in range(rng.poisson(1.5)):
        paint(abundance, "lymphocytes", 0.9 * (_ellipse(rng, grid, 1.0) < 1))
    return abundance


def paint(abundance: Floats, tissue: str, cover: NDArray[Any]) -> None:
    """Cover other tissues with one, in place.

    Args:
        abundance: `(H, W, T)`.
        tissue: One of `TISSUES`.
        cover: `(H, W)`, 0 leaves a pixel unchanged, 1 replaces it.
    """
    layer = np.asarray(cover, dtype=np.float32)
    abundance *= 1 - layer[..., None]
    abundance[..., TISSUES.index(tissue)] += layer


def _sample_muscle(rng: Generator, grid: Grid, outline: Mask) -> Mask:
    """A wavy layer along one side of the spot that takes up to 30 % of the tissue."""
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    depth = grid.x * np.cos(angle) + grid.y * np.sin(angle) + 0.03 * smooth_field(rng, grid, 0.15)
    return np.asarray(depth > np.quantile(depth[outline], 1 - share))


def _sample_crypts(rng: Generator, grid: Grid, outline: Mask, muscle: Mask) -> tuple[Floats, Floats]:
    """Glands cut across: rings of epithelium and the lumens inside them, covers `(H, W)` each.

    Returns:
        The whole gland (epithelium and lumen) and the lumen. Of the points that could hold a gland, 50 to 90 % do.
    """
    centres = _gland_centres(rng)
    # Glands come in clusters, and neither in muscle nor off the tissue.
    score = _values_at(centres, smooth_field(rng, grid, 0.3)) - 10 * _values_at(centres, muscle | ~outline)
    # A field of about unit variance stays far from ten, so that -5 parts the forbidden centres from all others.
    free = int((score > -5).sum())
    order = np.argsort(-score)[: max(1, round(free * rng.uniform(0.5, 0.9)))]
    # For every centre, also those without a gland: what is sampled later must not depend on which are taken.
    radii, lumens = rng.uniform(0.050, 0.068, len(centres)), rng.uniform(0.25, 0.50, len(centres))
    tilts = rng.uniform(0, 2 * np.pi, len(centres))
    distance, nearest = cKDTree(centres[order]).query(np.stack([grid.x.ravel(), grid.y.ravel()], axis=-1))
    chosen = order[nearest]
    offset = np.stack([grid.x.ravel(), grid.y.ravel()]) - centres[chosen].T
    wobble = 1 + 0.12 * np.cos(2 * np.arctan2(offset[1], offset[0]) + tilts[chosen])
    radius = radii[chosen] * wobble
    gland = _soft(radius - distance, grid.size).reshape(outline.shape)
    return gland, _soft(radius * lumens[chosen] - distance, grid.size).reshape(outline.shape)


def _gland_centres(rng: Generator, spacing: float = 0.145) -> NDArray[np.float64]:
    """Jittered hexagonal lattice over the image, `(N, 2)` as x, y."""
    offsets = np.arange(-5, 6) * spacing
    x, y = np.meshgrid(offsets, offsets * np.sqrt(0.75))
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    return np.asarray(points + rng.uniform(0, spacing, 2) + rng.normal(0, 0.008, points.shape))


def _values_at(points: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.float64]:
    """Values of a map at points (x, y); outside the image those of the border."""
    size = values.shape[0]
    column, row = np.clip(((points + 0.5) * size).astype(int), 0, size - 1).T
    return np.asarray(values[row, column], dtype=np.float64)


def _soft(depth: NDArray[np.floating], size: int) -> Floats:
    """Cover of a shape from the depth inside it: 0 to 1 over the one pixel that its border crosses."""
    return np.asarray(np.clip(depth * size + 0.5, 0, 1), dtype=np.float32)


def sample_tumour(rng: Generator, grid: Grid, outline: Mask, fraction: float) -> tuple[Mask, Floats]:
    """Tumour that takes a given fraction of the tissue, in irregular nests.

    Args:
        rng: Random numbers.
        grid: The pixels.
        outline: Tissue mask `(H, W)`.
        fraction: Of the tissue, in (0, 1); at least one pixel is taken.

    Returns:
        The truth `(H, W)`, inside the tissue, and the cover `(H, W)`: .55 to 1 where the truth is true (the rest is
        the tissue below), 0 elsewhere.
    """
    nests = smooth_field(rng, grid, 0.16) + 0.4 * smooth_field(rng, grid, 0.06)
    pixels = np.flatnonzero(outline)
    count = max(1, round(fraction * len(pixels)))
    truth = np.zeros_like(outline)
    # By rank, not by a level of the field: so the tumour takes the asked share of the tissue to the pixel.
    truth.flat[pixels[np.argsort(-nests.flat[pixels], kind="stable")[:count]]] = True
    return truth, _cover(rng, grid, truth)


def sample_small_tumours(
    rng: Generator, grid: Grid, outline: Mask, fraction: float, sizes: tuple[int, int]
) -> tuple[Mask, Floats]:
    """Tumours of a few pixels each, scattered over the tissue, that together take a given fraction of it.

    Args:
        rng: Random numbers.
        grid: The pixels.
        outline: Tissue mask `(H, W)`.
        fraction: Of the tissue, in (0, 1); to the pixel, at least one; the last tumour is as small as that asks.
        sizes: Of a tumour in pixels, smallest and largest.

    Returns:
        Truth and cover, as `sample_tumour` gives them.
    """
    pixels, truth = np.flatnonzero(outline), np.zeros_like(outline)
    count = max(1, round(fraction * len(pixels)))
    while (missing := count - int(truth.sum())) > 0:
        size = min(missing, int(rng.integers(sizes[0], sizes[1] + 1)))
        row, column = divmod(int(rng.choice(pixels)), grid.size)
        distance = np.hypot(grid.y - grid.y[row, 0], grid.x - grid.x[0, column])
        truth.flat[pixels[np.argsort(distance.flat[pixels], kind="stable")[:size]]] = True
    return truth, _cover(rng, grid, truth)


def _cover(rng: Generator, grid: Grid, truth: Mask) -> Floats:
    """How much of each pixel `(H, W)` is tumour: .55 to 1 where the truth is true."""
    purity = np.clip(0.85 + 0.15 * smooth_field(rng, grid, 0.04), 0.55, 1)
    return np.asarray(truth * purity, dtype=np.float32)


def blur(abundance: Floats, grid: Grid) -> Floats:
    """What an instrument of limited resolution sees of the abundances, `(H, W, T)`."""
    width = BLUR * grid.size
    return np.asarray(gaussian_filter(abundance, (width, width, 0)), dtype=np.float32)
