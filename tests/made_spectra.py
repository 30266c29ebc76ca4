"""Samples of spectra in which it is known what the pseudo-labeller should find."""

from __future__ import annotations

import numpy as np
import torch

CHANNELS = 6
SIGNATURE = np.array([0, 1.5, -1, 0, 0.5, 0])


def made_sample(generator: np.random.Generator, disease: bool, size: int = 24, cue: float = 0.7):
    """Noise, a cue that differs from sample to sample, and in disease samples a square with its own signature."""
    image = generator.normal(size=(CHANNELS, size, size)) * 0.6 + generator.normal(size=(CHANNELS, 1, 1)) * cue
    truth = np.zeros((size, size), bool)
    if disease:
        row, column = generator.integers(2, size - 12, 2)
        truth[row : row + 10, column : column + 10] = True
        image += SIGNATURE[:, None, None] * truth
    tissue = np.ones((1, size, size), bool)
    tissue[:, :2] = False
    return torch.from_numpy(image).float(), torch.from_numpy(tissue), torch.from_numpy(truth & tissue[0]), int(disease)


def small_targets(count: int = 60, seed: int = 0):
    """Three single pixels of 24 x 24 in each disease sample, far off in a direction in which samples do not differ."""
    generator = np.random.default_rng(seed)

    def sample(disease: bool):
        image, tissue, truth, _ = made_sample(generator, disease=False)
        rows, columns = generator.integers(2, 24, (2, 3))
        if disease:
            truth[rows, columns] = True
            image += 2 * torch.from_numpy(SIGNATURE).float()[:, None, None] * truth
        return image, tissue, truth, int(disease)

    return [sample(bool(index % 2)) for index in range(count)]


def made_cohort(count: int = 60, seed: int = 0, cue: float = 0.7):
    generator = np.random.default_rng(seed)
    return [made_sample(generator, bool(index % 2), cue=cue) for index in range(count)]


def stacked(samples):
    image, tissue, truth = (torch.stack([sample[part] for sample in samples]) for part in range(3))
    return image, tissue, truth[:, None], torch.tensor([float(sample[3]) for sample in samples])


def partly_disease_throughout():
    """Of 120 samples, every sixth is disease in all of its tissue."""
    image, tissue, truth, labels = stacked(made_cohort(120, cue=0.2))
    everywhere = (torch.arange(120) % 6 == 1)[:, None, None, None]
    image += torch.from_numpy(SIGNATURE).float()[:, None, None] * (everywhere & ~truth)
    truth = (truth | everywhere) & tissue
    return list(zip(image, tissue, truth[:, 0], labels.int().tolist(), strict=True))


def tiles_of_a_scene():
    """Tiles that show one field or another, of which disease is no part."""
    generator = np.random.default_rng(0)
    fields = -SIGNATURE * generator.uniform(0, 4, (8, 1))

    def tile(disease: bool):
        image = generator.normal(size=(CHANNELS, 24, 24)) * 0.6
        image[:, :, :12] += fields[generator.integers(8)][:, None, None]
        image[:, :, 12:] += fields[generator.integers(8)][:, None, None]
        truth = np.zeros((24, 24), bool)
        if disease:
            truth[generator.integers(12) :, generator.integers(12) :] = True
            image[:, truth] = generator.normal(size=(CHANNELS, truth.sum())) * 0.6 + SIGNATURE[:, None]
        return (
            torch.from_numpy(image).float(),
            torch.ones(1, 24, 24, dtype=torch.bool),
            torch.from_numpy(truth),
            int(disease),
        )

    return [tile(bool(index % 2)) for index in range(60)]
