"""What resonant Mie scattering costs the default recipe, and what correction gives back.

`benchmarks/mie.py OUT [STRENGTH [SEED]]`.

The phantom without scattering; the same with each pixel's spectrum distorted by spheres that absorb, from a forward
model of its own (`phantom.optics.resonant_extinction`); and the latter corrected by EMSC and by ME-EMSC, as published
and with a penalty. Each is a cohort that the default recipe learns from, with the same noise, seeds and samples.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from hydra.utils import instantiate

import compseg
from compseg.cohort import Corrected, prepare
from compseg.config import compose
from compseg.phantom.optics import resonant_extinction
from compseg.preprocessing import EMSC
from compseg.samples import SampleArrays

NOISE, SPHERES = 0.01, 2
RIDGE = 1.0  # as conf/correction/mie.yaml has it
SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2, "seed": 0}


class Scattering:
    """The phantom, noise added here and, where there is a strength, scattering by each spot's own spheres."""

    def __init__(self, strength: float, size: int, channels: int) -> None:
        node = compose("train").data.source
        for array, takes in (("A1", (10, 3)), ("A2", (10, 3)), ("A3", (12, 0))):
            both = {"healthy": takes[0], "disease": takes[0]}
            some = {"healthy": takes[1], "disease": takes[1]}
            node.arrays[array].takes = {"test": both} if array == "A3" else {"train": both, "val": some}
        self.phantom = instantiate(node, size=size, channels=channels, scatter=0.0, noise=0.0)
        self.strength, self.axis = strength, np.array(self.phantom.channels().values)
        self.infos, self.channels = self.phantom.infos, self.phantom.channels

    def provenance(self) -> dict:
        """The phantom's, and the strength."""
        return {**self.phantom.provenance(), "resonant": self.strength, "added_noise": NOISE}

    def read(self, info) -> SampleArrays:
        """A spot; its noise is the same at any strength."""
        arrays = self.phantom.read(info)
        rng = np.random.default_rng(sum(info.name.encode()))
        image = arrays.image.astype(np.float32) + rng.normal(0, NOISE, arrays.image.shape).astype(np.float32)
        if self.strength:
            pure = np.clip(arrays.image[arrays.tissue], 0, None)
            for _ in range(SPHERES):
                radius, index = rng.uniform(2.5, 6.5), rng.uniform(1.15, 1.35)
                amount = self.strength * rng.uniform(0.5, 1.5) * np.exp(rng.normal(0, 0.3, len(pure)))
                image[arrays.tissue] += amount[:, None] * resonant_extinction(self.axis, pure, radius, index)
        return SampleArrays(image, arrays.tissue, arrays.truth, arrays.thumbnail)


def main(
    folder: Path, size: int = 32, channels: int = 128, strength: float = 0.2, seed: int = 0, epochs: int = 15
) -> None:
    """Prepare, train and print a line for each cohort."""
    distorted = Scattering(strength, size, channels)
    reference = _absorbance(Scattering(0.0, size, channels))
    node = {"_target_": "compseg.preprocessing.ResonantMie", "wavenumbers": "auto", "reference": reference}
    emsc = {**node, "_target_": "compseg.preprocessing.EMSC"}
    ridge = {**node, "ridge": RIDGE}
    sources = {"undistorted": Scattering(0.0, size, channels), "distorted": distorted}
    for name, each in (("emsc", emsc), ("mie", node), ("mie_ridge", ridge)):
        sources[name] = Corrected(distorted, [each], instantiate, "auto", SPLITS)
    cohorts = {name: prepare(source, folder / f"{name}.zarr", splits=SPLITS) for name, source in sources.items()}
    for name, cohort in cohorts.items():
        error = np.mean([_error(cohort, cohorts["undistorted"], info.name, reference) for info in cohort.split("test")])
        keys = {
            "data.path": str(cohort.path),
            "hydra.run.dir": str(folder / name),
            "trainer.max_epochs": epochs,
            "seed": seed,
        }
        metrics = compseg.train("data=cohort", "trainer.accelerator=cpu", "trainer.devices=1", **keys).metrics
        found = f"AP {metrics['test/pixel_ap']:.3f}, Dice {metrics['test/dice_mean']:.3f}"
        print(f"{name}: spectra off by {error:.4f}, {found}")


def _absorbance(source: Scattering) -> list[float]:
    """A scatter-free reference: the mean of a few healthy spots' tissue, as a measured standard would be."""
    healthy = [info for info in source.infos() if info.split == "train" and not info.label][:4]
    return np.mean([arrays.image[arrays.tissue].mean(0) for arrays in map(source.read, healthy)], axis=0).tolist()


def _error(cohort, undistorted, name: str, reference: list[float]) -> float:
    """Root mean square from the undistorted spectra, of tissue, both without thickness and baseline."""
    import torch

    scaled, tissue = EMSC(cohort.channels.values, reference), cohort.tissue(name)
    ours, theirs = (
        scaled.correct_pixels_(torch.from_numpy(each.image(name)[tissue]).float()) for each in (cohort, undistorted)
    )
    return float((ours - theirs).square().mean().sqrt())


if __name__ == "__main__":
    main(Path(sys.argv[1]), strength=float(sys.argv[2] if sys.argv[2:] else 0.2), seed=int((sys.argv[3:] or [0])[0]))
