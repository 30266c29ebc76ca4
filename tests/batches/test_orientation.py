"""Which flips and rotations pictures bear: by whether they can be told from their reflections."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from compseg.batches.orientation import FEWEST, VISIBLE, Orientation, share_told
from compseg.samples import SampleInfo

ROWS, COLUMNS = np.mgrid[0:24, 0:24] / 24
# What all pictures of a cohort have in common, and how they may then be laid down.
COHORTS = {
    "all": np.zeros((24, 24)),
    "left_right": 1 - ROWS,  # a probe at the top
    "up_down": COLUMNS,
    "flips": 3 * np.abs(COLUMNS - 11.5 / 24),  # stripes: a rotation by 90 degrees shows
    "none": ROWS + 2 * COLUMNS,
}


def cohort_of(pattern, count=60, size=(24, 24), patients=True, seed=0):
    generator = np.random.default_rng(seed)
    infos = [SampleInfo(f"p{k}", k % 2, split="train", patient=str(k // 2) if patients else "") for k in range(count)]
    images = {info.name: picture_of(pattern, generator)[: size[0], : size[1]] for info in infos}
    return SimpleNamespace(
        split=lambda _: infos,
        shape=lambda name: images[name].shape,
        strips=lambda name, _: np.array_split(images[name], 3),
        tissue=lambda name: np.ones(images[name].shape[:2], bool),
    )


def picture_of(pattern, generator):
    """Smooth noise of another gain and offset each time, over what the cohort has in common."""
    noise = gaussian_filter(generator.normal(size=(24, 24)), 2)
    return (generator.uniform(0.1, 10) * (pattern + 0.5 * noise / noise.std()) + generator.normal())[..., None]


@pytest.mark.parametrize("ways", COHORTS)
def test_pictures_are_laid_down_as_they_may_have_been_taken(ways):
    seen = Orientation.of(cohort_of(COHORTS[ways]))
    assert seen.ways == ways, seen.why


@pytest.mark.parametrize("seed", range(5))
def test_what_is_not_there_is_told_half_of_the_time(seed):
    told = Orientation.of(cohort_of(COHORTS["all"], count=100, seed=seed), seed).told
    assert len(told) == 3
    assert all(abs(share - 0.5) < VISIBLE - 0.5 for share in told.values())


def test_few_pictures_say_nothing_and_rectangles_nothing_of_rotations():
    few = Orientation.of(cohort_of(COHORTS["all"], count=FEWEST - 1))
    assert few.told == {}
    assert few.ways == "left_right"
    assert str(FEWEST) in few.why
    rectangles = Orientation.of(cohort_of(COHORTS["all"], size=(24, 20)))
    assert list(rectangles.told) == ["left and right", "up and down"]
    assert rectangles.ways == "flips"


def test_a_picture_that_equals_its_reflection_counts_half():
    pictures = np.ones((30, 4, 4))
    assert share_told(pictures, lambda p: p[..., ::-1], np.arange(30) < 15) == 0.5


def test_pictures_of_a_patient_are_not_on_both_sides():
    """Each patient's pictures alike and of random direction: told by heart, were they on both sides."""
    generator = np.random.default_rng(0)
    infos = [SampleInfo(f"p{k}", 0, split="train", patient=str(k // 10)) for k in range(100)]
    own = generator.normal(size=(10, 16, 16, 1))
    cohort = SimpleNamespace(
        split=lambda _: infos,
        shape=lambda _: (16, 16, 1),
        strips=lambda name, _: [own[int(name[1:]) // 10]],
        tissue=lambda _: np.ones((16, 16), bool),
    )
    told = Orientation.of(cohort).told
    # Ten patients, so in steps of a tenth; by heart it would be 1.
    assert told["left and right"] <= 0.8


@pytest.mark.parametrize("size", [(1, 1), (3, 50)])
def test_pictures_of_any_size_and_without_tissue(size):
    infos = [SampleInfo(f"p{k}", 0, split="train") for k in range(30)]
    cohort = SimpleNamespace(
        split=lambda _: infos,
        shape=lambda _: (*size, 3),
        strips=lambda *_: [np.ones((*size, 3), np.float16)],
        tissue=lambda _: np.zeros(size, bool),
    )
    assert set(Orientation.of(cohort).told.values()) == {0.5}
