"""The phantom as a source of samples: which spots a cohort has, and the pixels of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from compseg.errors import CompsegError, closest
from compseg.phantom import anatomy, optics
from compseg.phantom.bands import COMPONENTS, Floats, component_spectra, tissue_mixes
from compseg.phantom.optics import ArrayEffect
from compseg.samples import SPLITS, Channels, Mask, SampleArrays, SampleInfo

GENERATOR = "compseg-phantom-1"  # raise it when the same parameters would give other pixels

FIRST, LAST = 1800.0, 948.0  # cm-1, the paper's range

# The tumour's share of the tissue is low + (high - low) * Beta(1.5, 2.5): mean 3/8 of the way, seldom at either end.
FRACTION_BETA = (1.5, 2.5)

SHORTCUTS = ("area", "thickness", "background")

CONDITIONS = {"healthy": 0, "disease": 1}

# What a random stream is for; each has an independent sequence per item.
LAYOUT, PATIENT, ANATOMY, TUMOUR, OPTICS, STAIN = range(6)


def stream(seed: int, purpose: int, array: int, item: int = 0) -> Generator:
    """The random numbers of one item of one array, independent of the numbers taken from other streams."""
    # A key for each, not one generator passed on: so samples may be read in any order, and a further array or a tumour
    # leaves all others as they were.
    return default_rng(SeedSequence(seed, spawn_key=(purpose, array, item)))


@dataclass(frozen=True)
class ArrayPlan:
    """One tissue microarray.

    Attributes:
        holds: How many spots of each class (`T`, `N`, ...) are on the array.
        takes: How many of them each split takes, `{"train": {"healthy": 15, "disease": 15}}`; the rest stay unused.
        effect: What all its spots share.
    """

    holds: Mapping[str, int]
    takes: Mapping[str, Mapping[str, int]]
    effect: ArrayEffect = field(default_factory=ArrayEffect)

    @classmethod
    def parse(cls, name: str, plain: Mapping[str, Any]) -> ArrayPlan:
        """Read it from configuration.

        Raises:
            CompsegError: On an unknown key, split or condition.
        """
        where = f"arrays.{name}"
        check_keys(where, plain, ("holds", "takes", "effect"))
        if missing := {"holds", "takes"} - set(plain):
            raise CompsegError(f"phantom, {where}: expected the keys holds and takes, got no {min(missing)}; add it")
        check_keys(f"{where}.takes", plain["takes"], SPLITS)
        for split, counts in plain["takes"].items():
            check_keys(f"{where}.takes.{split}", counts, CONDITIONS)
        effect = dict(plain.get("effect", {}))
        check_keys(f"{where}.effect", effect, [f.name for f in fields(ArrayEffect)])
        return cls(dict(plain["holds"]), {split: dict(n) for split, n in plain["takes"].items()}, ArrayEffect(**effect))


@dataclass(frozen=True)
class Spot:
    """One sample to make.

    Attributes:
        info: What the cohort is told.
        array: Number of the array.
        index: Number of the spot on it.
        patient: Number of the patient on it.
        cue: -1 or 1, the sign of a shortcut. It follows the label in train and val and is independent of it in test.
    """

    info: SampleInfo
    array: int
    index: int
    patient: int
    cue: int


def check_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown keys.

    Raises:
        CompsegError: Names the first unknown key and the nearest known one.
    """
    allowed = list(known)
    for key in given:
        if key not in allowed:
            raise CompsegError(
                f"phantom, {where}: expected one of {', '.join(allowed)}, got {key}; {closest(key, allowed, 'known')}"
            )


def plan_spots(
    arrays: Mapping[str, ArrayPlan], class_labels: Mapping[str, int | None], spots_per_patient: int, seed: int
) -> list[Spot]:
    """Every sample of the cohort, array by array, in an order that is independent of the label.

    Args:
        arrays: By name.
        class_labels: 1, 0, or None for classes that are left out.
        spots_per_patient: At most so many samples come from one patient, all of one array, split and label.
        seed: Of the cohort.

    Raises:
        CompsegError: A split takes more than the array holds, or a class has no label.
    """
    spots = []
    for number, (name, plan) in enumerate(arrays.items()):
        check_keys(f"arrays.{name}.holds", plan.holds, class_labels)
        rng = stream(seed, LAYOUT, number)
        rows = list(_deal(rng, name, plan, class_labels, spots_per_patient))
        # Shuffled, or a spot's number would tell its label: `_deal` yields healthy spots first.
        for index, row in enumerate(rng.permutation(len(rows))):
            word, label, split, patient, cue = rows[row]
            origin = f"phantom seed {seed}, array {number}, spot {index}"
            info = SampleInfo(f"{name}_{index + 1:03d}", label, word, split, name, f"{name}_p{patient + 1:03d}", origin)
            spots.append(Spot(info, number, index, patient, cue))
    return spots


def _deal(
    rng: Generator, name: str, plan: ArrayPlan, class_labels: Mapping[str, int | None], spots_per_patient: int
) -> Iterator[tuple[str, int, str, int, int]]:
    """Deal an array's spots to splits and patients: yields class, label, split, patient and cue."""
    patient = 0
    for condition, label in CONDITIONS.items():
        words = [word for word, count in plan.holds.items() if class_labels[word] == label for _ in range(count)]
        wanted = sum(counts.get(condition, 0) for counts in plan.takes.values())
        if wanted > len(words):
            raise CompsegError(
                f"phantom, arrays.{name}.takes: expected at most the {len(words)} {condition} spots that it holds, "
                f"got {wanted}; lower takes or raise holds"
            )
        shuffled = [words[i] for i in rng.permutation(len(words))]
        for split, counts in plan.takes.items():
            count = counts.get(condition, 0)
            for k in range(count):  # a patient's spots share array, split and label
                # In test the two signs alternate within a class: as frequent as in training, and they tell nothing.
                cue = 2 * label - 1 if split != "test" else 1 - 2 * (k % 2)
                yield shuffled.pop(), label, split, patient + k // spots_per_patient, cue
            patient += -(-count // spots_per_patient)


class PhantomSource:
    """Spots of a tissue microarray with known truth, made one at a time from a seed.

    A disease spot is a healthy spot with tumour painted on: anatomy, patient, thickness, scattering and noise come from
    random streams that are independent of the label, unless a shortcut asks for it.
    """

    def __init__(
        self,
        arrays: Mapping[str, Mapping[str, Any]],
        class_labels: Mapping[str, int | None],
        size: int = 64,
        channels: int = 32,
        difficulty: float = 1.0,
        tumour_fraction: Sequence[float] = (0.08, 0.8),
        tumour_pixels: Sequence[int] | None = None,
        spots_per_patient: int = 2,
        patient_mix: float = 0.15,
        patient_shift: float = 0.8,
        thickness: float = 0.15,
        scatter: float = 0.03,
        noise: float = 0.02,
        shortcuts: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Plan a cohort; no pixels are made yet.

        Args:
            arrays: By name: `holds` (spots of each class), `takes` (healthy and disease spots of each split) and
                `effect` (fields of `ArrayEffect`).
            class_labels: 1 = disease, 0 = healthy, None = left out, for each class that an array holds.
            size: Pixels a side, at least 16.
            channels: Number C of wavenumbers, evenly from 1800 to 948 cm-1, at least 8.
            difficulty: Divides the chemical difference between tumour and epithelium: 2 leaves half of it for the same
                patients, scattering and noise.
            tumour_fraction: Lowest and highest share of tumour in a disease spot's tissue; the share is sampled from
                `low + (high - low) * Beta(1.5, 2.5)`. Two zeros: no tumour at all.
            tumour_pixels: Smallest and largest size in pixels of separate small tumours, scattered over the tissue;
                None: irregular nests.
            spots_per_patient: At most so many spots come from one patient.
            patient_mix: Standard deviation of the logarithm of each component's amount between patients; within a spot
                it varies as much again.
            patient_shift: Standard deviation in cm-1 of each component's band positions between patients.
            thickness: Standard deviation of the logarithm of the thickness between spots, and half of it within.
            scatter: Mean absorbance that each of two kinds of scatterer adds inside the tissue; four times as much at
                edges.
            noise: Standard deviation of the noise in absorbance at 1800 cm-1, twice that at 948 cm-1.
            shortcuts: Strength of misleading cues: `area` and `thickness` are relative changes of radius and thickness,
                `background` is absorbance added off the tissue. They follow the label in train and val, and are as
                frequent but independent of it in test.
            seed: Of all random numbers.

        Raises:
            CompsegError: On values out of range, unknown keys, or more spots taken than an array holds.
        """
        # From locals(), before there are others: a parameter that is added cannot be missing from the provenance.
        self._parameters = _plain({key: value for key, value in locals().items() if key != "self"})
        _check_ranges(self._parameters)
        self._shortcuts: dict[str, float] = self._parameters["shortcuts"] or {}
        check_keys("shortcuts", self._shortcuts, SHORTCUTS)
        self._seed, self._fraction = seed, (float(tumour_fraction[0]), float(tumour_fraction[1]))
        self._sizes = None if tumour_pixels is None else (int(tumour_pixels[0]), int(tumour_pixels[1]))
        self._patient_mix, self._patient_shift = patient_mix, patient_shift
        self._thickness, self._scatter, self._noise = thickness, scatter, noise
        self._grid = anatomy.Grid.of(size)
        self._wavenumbers = np.linspace(FIRST, LAST, channels)
        self._mixes = tissue_mixes(difficulty)
        # The plain parameters, whose keys are text: an array or a class may be called 1.
        plans = {name: ArrayPlan.parse(name, plain) for name, plain in self._parameters["arrays"].items()}
        labels = self._parameters["class_labels"]
        self._effects = [plan.effect for plan in plans.values()]
        self._spots = {s.info.name: s for s in plan_spots(plans, labels, spots_per_patient, seed)}

    def infos(self) -> list[SampleInfo]:
        """Every sample, array by array."""
        return [spot.info for spot in self._spots.values()]

    def channels(self) -> Channels:
        """Wavenumbers from 1800 down to 948 cm-1."""
        return Channels(len(self._wavenumbers), tuple(self._wavenumbers.tolist()), "cm-1")

    def provenance(self) -> dict[str, Any]:
        """All parameters and the generator's version."""
        return {"source": "phantom", "generator": GENERATOR, **_plain(self._parameters)}

    def read(self, info: SampleInfo) -> SampleArrays:
        """Make one sample; it is the same at any time and in any order of reading.

        Returns:
            Image `(H, W, C)` float32 absorbance, tissue and truth `(H, W)`, thumbnail `(H, W, 3)`.

        Raises:
            CompsegError: This source has no such sample.
        """
        if info.name not in self._spots:
            raise CompsegError(f"phantom: expected one of its {len(self._spots)} samples, got {info.name}; see infos()")
        return self.render(self._spots[info.name])

    def render(self, spot: Spot) -> SampleArrays:
        """The pixels of a spot; with the label changed, the same spot with or without its tumour."""
        tissue, truth, content = self._chemistry(spot)
        thumbnail = optics.stain(stream(self._seed, STAIN, spot.array, spot.index), content)
        return SampleArrays(self._measure(spot, tissue, content), tissue, truth, thumbnail)

    def _cue(self, spot: Spot, shortcut: str) -> float:
        """How much a shortcut changes a spot."""
        return self._shortcuts.get(shortcut, 0.0) * spot.cue

    def _chemistry(self, spot: Spot) -> tuple[Mask, Mask, Floats]:
        """Tissue and truth `(H, W)`, and the amounts of the components `(H, W, K)`, none off the tissue."""
        rng = stream(self._seed, ANATOMY, spot.array, spot.index)
        tissue = anatomy.sample_outline(rng, self._grid, 1 + self._cue(spot, "area"))
        abundance = anatomy.sample_tissues(rng, self._grid, tissue)
        truth = self._add_tumour(spot, tissue, abundance)
        abundance *= tissue[..., None]
        content = anatomy.blur(abundance, self._grid) @ (self._mixes * self._patient(spot)[0])
        for k in range(len(COMPONENTS)):
            content[..., k] *= np.exp(self._patient_mix * anatomy.smooth_field(rng, self._grid, 0.06))
        return tissue, truth, content

    def _add_tumour(self, spot: Spot, tissue: Mask, abundance: Floats) -> Mask:
        """Paint tumour on a disease spot and return the truth."""
        low, high = self._fraction
        if spot.info.label == 0 or high == 0:
            return np.zeros_like(tissue)
        # A stream of its own, so that with another label the spot is the same but for the tumour.
        rng = stream(self._seed, TUMOUR, spot.array, spot.index)
        share = low + (high - low) * rng.beta(*FRACTION_BETA)
        if self._sizes is None:
            truth, cover = anatomy.sample_tumour(rng, self._grid, tissue, share)
        else:
            truth, cover = anatomy.sample_small_tumours(rng, self._grid, tissue, share, self._sizes)
        anatomy.paint(abundance, "tumour", cover)
        return truth

    def _patient(self, spot: Spot) -> tuple[Floats, Floats]:
        """A patient's factors on the components and shifts of their bands in cm-1, `(K,)` each."""
        rng = stream(self._seed, PATIENT, spot.array, spot.patient)
        factors = np.exp(rng.normal(0, self._patient_mix, len(COMPONENTS)))
        shifts = rng.normal(0, self._patient_shift, len(COMPONENTS))
        return factors.astype(np.float32), shifts.astype(np.float32)

    def _measure(self, spot: Spot, tissue: Mask, content: Floats) -> Floats:
        """What the instrument gives for the chemistry, `(H, W, C)` absorbance."""
        rng = stream(self._seed, OPTICS, spot.array, spot.index)
        effect = self._effects[spot.array]
        spectra = component_spectra(self._wavenumbers, self._patient(spot)[1] + effect.shift)
        thickness = optics.sample_thickness(rng, self._grid, self._thickness) * (1 + self._cue(spot, "thickness"))
        strengths, curves = optics.sample_scatter(rng, self._grid, tissue, self._wavenumbers)
        # One product of maps and spectra, so that a spot of 256x256x450 needs no memory beside itself and its noise.
        maps = np.concatenate([content * thickness[..., None], self._scatter * strengths], axis=-1)
        cube: Floats = maps.astype(np.float32) @ np.concatenate([spectra, curves])
        effect.apply(cube)
        cube[~tissue] += self._cue(spot, "background")
        optics.add_noise(rng, cube, self._noise)
        return cube


def _plain(value: Any) -> Any:
    """Containers as dict and list with keys of text, also those of a configuration library."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _check_ranges(parameters: Mapping[str, Any]) -> None:
    lowest = {"size": 16, "channels": 8, "spots_per_patient": 1, "patient_mix": 0, "patient_shift": 0}
    lowest |= {"thickness": 0, "scatter": 0, "noise": 0, "seed": 0}
    for key, low in lowest.items():
        if parameters[key] < low:
            raise CompsegError(f"phantom, {key}: expected at least {low}, got {parameters[key]}; raise it")
    if parameters["difficulty"] <= 0:
        raise CompsegError(f"phantom, difficulty: expected more than 0, got {parameters['difficulty']}; raise it")
    fraction = parameters["tumour_fraction"]
    if len(fraction) != 2 or not 0 <= fraction[0] <= fraction[1] < 1 or fraction[0] == 0 < fraction[1]:
        raise CompsegError(
            f"phantom, tumour_fraction: expected 0 < low <= high < 1, got {fraction}; give two shares, [0, 0] for none"
        )
    sizes = parameters["tumour_pixels"]
    if sizes is not None and (len(sizes) != 2 or not 1 <= sizes[0] <= sizes[1]):
        raise CompsegError(
            f"phantom, tumour_pixels: expected 1 <= smallest <= largest, got {sizes}; give two sizes, null for nests"
        )
