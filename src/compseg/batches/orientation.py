"""The flips and rotations that a cohort's pictures do not show, so that a training picture may be laid down so.

A reflection is visible if held-out pictures can be told from their mirror images by it: an ultrasound probe is at the
top, and a section has no top. Labels play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compseg.batches.augmentation import Ways
from compseg.cohort import Cohort
from compseg.samples import SampleInfo
from compseg.sums import channel_sums

Floats = NDArray[np.float64]

CELLS = 16  # on each side of what a picture is described by
MOST = 100  # pictures that are read
FEWEST = 20  # pictures that say something
VISIBLE = 0.75  # share of held-out pictures that are told from their mirror images
# Each is its own inverse, so where nothing is visible a picture and its image are told apart half of the time.
REFLECTIONS: dict[str, Callable[[Floats], Floats]] = {
    "left and right": lambda picture: picture[..., ::-1],
    "up and down": lambda picture: picture[..., ::-1, :],
    "rows and columns": lambda picture: picture.swapaxes(-1, -2),
}


@dataclass(frozen=True)
class Orientation:
    """What pictures show of how they were laid down.

    Attributes:
        told: Share of held-out pictures that are told from their reflections, by reflection; without those of which
            too few pictures speak.
    """

    told: dict[str, float]

    @classmethod
    def of(cls, cohort: Cohort, seed: int = 0) -> Orientation:
        """That of a cohort's training pictures, of which up to `MOST` are read.

        Args:
            cohort: With training samples.
            seed: Of which are read, and of how they are halved.
        """
        generator = np.random.default_rng(seed)
        train = cohort.split("train")
        infos = [train[number] for number in sorted(generator.permutation(len(train))[:MOST])]
        first = _halves(infos, generator)
        pictures = np.array([_described(cohort, info) for info in infos])
        square = np.array([height == width for height, width, _ in (cohort.shape(info.name) for info in infos)])
        told = {}
        for name, reflected in REFLECTIONS.items():
            fit = square if name == "rows and columns" else np.full(len(infos), fill_value=True)
            if fit.sum() >= FEWEST:
                told[name] = share_told(pictures[fit], reflected, first[fit])
        return cls(told)

    @property
    def ways(self) -> Ways:
        """How a training picture may be laid down; where nothing is known, with left and right exchanged."""
        sideways, upwards, across = (self.told.get(name, 1.0) < VISIBLE for name in REFLECTIONS)
        if sideways and upwards:
            return "all" if across else "flips"
        return "left_right" if sideways or not self.told else "up_down" if upwards else "none"

    @property
    def why(self) -> str:
        """The reason in words."""
        if not self.told:
            return f"fewer than {FEWEST} training pictures do not tell which way is up"
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.told.items())
        return f"held-out pictures told from their reflections: {shares}"


def share_told(pictures: Floats, reflected: Callable[[Floats], Floats], first: NDArray[np.bool_]) -> float:
    """The share of pictures that a linear discriminant, fitted to the other half, tells from their reflections.

    Args:
        pictures: `(N, ..., H, W)`.
        reflected: A reflection.
        first: Which are in the first half, `(N,)`.

    Returns:
        A share; about .5 where nothing is visible. A picture that equals its reflection counts half.
    """
    differences = (pictures - reflected(pictures)).reshape(len(pictures), -1)
    told = 0.0
    for half in (first, ~first):
        scores = differences[half] @ _direction(differences[~half])
        told += float((scores > 0).sum() + (scores == 0).sum() / 2)
    return told / len(pictures)


def _direction(differences: Floats) -> Floats:
    """Where differences `(n, D)` point, all of them alike, by their ridge-regularised second moments."""
    if not differences.any():
        return np.zeros(differences.shape[1])
    moments = differences.T @ differences / len(differences)
    # As much again as the mean moment: there are more dimensions than pictures.
    ridge = np.trace(moments) / len(moments) * np.eye(len(moments))
    direction: Floats = np.linalg.solve(moments + ridge, differences.mean(0))
    return direction


def _halves(infos: Sequence[SampleInfo], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Which samples are in the first half; those of a patient are in the same."""
    patients = [info.patient or info.name for info in infos]
    known = sorted(set(patients))
    first = {known[number] for number in generator.permutation(len(known))[: len(known) // 2]}
    return np.array([patient in first for patient in patients])


def _described(cohort: Cohort, info: SampleInfo) -> Floats:
    """A picture in few cells, `(2, CELLS, CELLS)`: brightness, zero on average of the tissue; and share of tissue."""
    strips = (channel_sums(strip)[0] for strip in cohort.strips(info.name, "image"))
    brightness, tissue = np.concatenate(list(strips)).astype(np.float64), cohort.tissue(info.name)
    inside = brightness[tissue]
    # Without a unit: what one picture's gain is must not weigh more than another's.
    scale = (inside.std() if inside.size else 0.0) or 1.0
    centred = np.where(tissue, (brightness - (inside.mean() if inside.size else 0.0)) / scale, 0.0)
    return np.array([_in_cells(centred), _in_cells(tissue.astype(np.float64))])


def _in_cells(picture: Floats) -> Floats:
    """The means `(CELLS, CELLS)` of a picture's cells; of a small picture some repeat their neighbours."""
    rows, columns = (np.linspace(0, size, CELLS + 1).astype(int) for size in picture.shape)
    by_row: Any = np.add.reduceat(picture, rows[:-1], 0) / np.maximum(np.diff(rows), 1)[:, None]
    means: Floats = np.add.reduceat(by_row, columns[:-1], 1) / np.maximum(np.diff(columns), 1)
    return means
