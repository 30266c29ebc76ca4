"""The pseudo-labeller against the same algorithm written plainly: time, agreement of their marks, memory.

The plain one is what docs/explanation/pseudo-labels.md says, in double precision, with every covariance formed anew
from all pixels. `python benchmarks/labeller.py data/mine.zarr` compares both on the training samples of a cohort.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from common import Row, cohort_of_spots, peak_memory, seconds, table
from hydra.utils import instantiate
from torch import Tensor

from compseg.comparative import FisherPseudoLabels
from compseg.comparative.pseudo_labels.choice import BETTER, MODES
from compseg.comparative.pseudo_labels.marking import CONVERGED, ROUNDS, Fit, ReferenceMode, auc, mark
from compseg.comparative.pseudo_labels.spectra import local_mean
from compseg.config import compose
from compseg.preprocessing import Preprocess, fit_standardisation
from compseg.training.resolve import resolve

Sample = tuple[Tensor, Tensor, int]  # preprocessed image (C, H, W), tissue (1, H, W), label
CHANNELS = (64, 450)


def measure(folder: Path) -> list[Row]:
    """Rows of the table: phantom spots of 64 x 64 pixels."""
    cohorts = {f"phantom, {channels} channels": cohort_of_spots(folder, channels) for channels in CHANNELS}
    return [row for name, cohort in cohorts.items() for row in compared(name, samples_of(cohort.path))]


def samples_of(path: str | Path) -> list[Sample]:
    """The preprocessed training samples of a cohort, by the default corrections."""
    cfg = compose(
        "train", ["data=cohort", f"data.path={path}", "data.cache=none", "data.workers=0", "hydra.run.dir=unused"]
    )
    data = instantiate(cfg.data)
    preprocess: Preprocess = instantiate(resolve(cfg, data.cohort).cfg.preprocess)
    data.setup()
    fit_standardisation(preprocess, data.training_tissue())
    return [
        (preprocess(image[None], tissue[None])[0].clone(memory_format=torch.preserve_format), tissue, info.label)
        for (image, tissue), info in zip(data.training_tissue(), data.train.infos, strict=True)
    ]


def compared(name: str, samples: Sequence[Sample]) -> list[Row]:
    """Both fitted to the same samples."""
    ours, plain = (FisherPseudoLabels(len(samples[0][0])) for _ in range(2))
    memory = peak_memory(partial(ours.fit, samples, len(samples)))
    taken = min(seconds(partial(ours.fit, samples, len(samples))) for _ in range(2))
    reference = seconds(lambda: fit_plainly(plain, samples, len(samples)))
    different, tissue = disagreement(ours, plain, samples), sum(int(inside.sum()) for _, inside, _ in samples)
    return [
        Row(f"{name}, {len(samples)} spots", taken, "every covariance anew, in double precision", reference),
        Row(f"{name}: pixels marked differently", different, "pixels of tissue", tissue),
        Row(f"{name}: memory above the samples, GB", memory / 1e9, "the bar, GB", 1.0),
    ]


def against_another(file: str | Path, samples: Sequence[Sample]) -> list[Row]:
    """Both fitted to the same samples, the other being the `pseudo_labels.py` of another commit."""
    spec = importlib.util.spec_from_file_location("other_pseudo_labels", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    ours, other = (kind(len(samples[0][0])) for kind in (FisherPseudoLabels, module.FisherPseudoLabels))
    times, processor = [], []
    for labeller in (ours, other):
        before = time.process_time()
        times.append(seconds(partial(labeller.fit, samples, len(samples))))
        processor.append(time.process_time() - before)
    different, tissue = disagreement(ours, other, samples), sum(int(inside.sum()) for _, inside, _ in samples)
    what = f"{len(samples)} spots, {len(samples[0][0])} channels"
    return [
        Row(what, times[0], "the other commit", times[1]),
        Row(f"{what}: processor seconds", processor[0], "the other commit", processor[1]),
        Row(f"{what}: pixels marked differently", different, "pixels of tissue", tissue),
    ]


def disagreement(one: FisherPseudoLabels, other: FisherPseudoLabels, samples: Sequence[Sample]) -> int:
    """How many pixels one marks and the other does not, whatever the label."""
    disease, found = torch.ones(1), 0
    for image, tissue, _ in samples:
        first, second = (each(image[None], tissue[None], disease) for each in (one, other))
        found += int((first != second).sum())
    return found


def fit_plainly(labeller: FisherPseudoLabels, samples: Sequence[Sample], count: int, seed: int = 0) -> None:
    """What `FisherPseudoLabels.fit` does, step by step and in double precision."""
    generator = torch.Generator().manual_seed(seed)
    classes: tuple[list[Tensor], list[Tensor]] = ([], [])
    for image, tissue, label in samples:
        spectra = local_mean(image[None], tissue[None], labeller.neighbourhood)[0][:, tissue[0]].T.double()
        chosen = torch.randperm(len(spectra), generator=generator)[: max(1, labeller.pixels // count)]
        classes[label].append(spectra[chosen])
    aucs = [_held_out_auc(*classes, labeller.shrinkage, mode, seed) for mode in MODES]
    best = max(range(len(MODES)), key=lambda number: aucs[number] - BETTER * (number > 0))
    labeller.held_out_auc = aucs[best]
    for name, value in _mark_and_refit(*classes, labeller.shrinkage, MODES[best])._asdict().items():
        getattr(labeller, name).copy_(value)


def _held_out_auc(healthy: list, disease: list, shrinkage: float, mode: ReferenceMode, seed: int) -> float:
    if min(len(healthy), len(disease)) < 2:
        return math.nan
    generator, aucs = torch.Generator().manual_seed(seed), []
    orders = [torch.randperm(len(samples), generator=generator) for samples in (healthy, disease)]
    shuffled = [[samples[i] for i in order] for samples, order in zip((healthy, disease), orders, strict=True)]
    for half in (0, 1):
        fit = _mark_and_refit(*(samples[half::2] for samples in shuffled), shrinkage, mode)
        shares = [torch.stack([_share(pixels, fit) for pixels in samples[1 - half :: 2]]) for samples in shuffled]
        aucs.append(auc(*shares))
    return sum(aucs) / 2


def _share(pixels: Tensor, fit: Fit) -> Tensor:
    score = (pixels @ fit.filter)[None, None, None]
    return mark(score, torch.ones_like(score, dtype=torch.bool), fit).double().mean()


def _mark_and_refit(healthy: list, disease: list, shrinkage: float, mode: ReferenceMode) -> Fit:
    means = torch.stack([pixels.mean(0) for pixels in healthy])
    clean, mixed = torch.cat(healthy), torch.cat(disease)
    direction = _fisher(mixed, clean, shrinkage)
    if mode.own:
        clean = torch.cat([pixels - mean for pixels, mean in zip(healthy, means, strict=True)])
    marked = torch.zeros(len(mixed), dtype=torch.bool)
    for _ in range(ROUNDS):
        before, highest = marked, means[(means @ direction).argmax()]
        if mode.own:
            stand_in = highest if mode.stand_in else None
            parts = zip(disease, before.split([len(pixels) for pixels in disease]), strict=True)
            mixed = torch.cat([pixels - _background(pixels, part, stand_in, direction) for pixels, part in parts])
        share, level = _excess_share(mixed @ direction, clean @ direction)
        marked = mixed @ direction > level
        fit = Fit(direction, level, highest, share, *map(torch.tensor, mode))
        if (marked != before).double().mean() < CONVERGED:
            break
        direction = _fisher(mixed[marked], torch.cat([mixed[~marked], clean]), shrinkage)
    return fit


def _background(pixels: Tensor, marked: Tensor, stand_in: Tensor | None, direction: Tensor) -> Tensor:
    if marked.all():
        return pixels.mean(0) if stand_in is None else stand_in
    own = pixels[~marked].mean(0)
    return own if stand_in is None or own @ direction <= stand_in @ direction else stand_in


def _excess_share(mixed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    levels = torch.quantile(mixed, torch.linspace(0, 1, 1001, dtype=mixed.dtype))
    above = [
        1 - torch.searchsorted(scores.sort().values, levels, right=True) / len(scores) for scores in (mixed, clean)
    ]
    share = (above[0] - above[1]).max().clamp(min=1 / len(mixed), max=0.9)
    return share, torch.quantile(mixed, 1 - share.to(mixed.dtype))


def _fisher(ones: Tensor, zeros: Tensor, shrinkage: float) -> Tensor:
    pooled = sum(len(pixels) * _covariance(pixels) for pixels in (ones, zeros)) / (len(ones) + len(zeros))
    size = pooled.diagonal().mean().clamp_min(1e-12)
    shrunk = pooled + shrinkage * size * torch.eye(len(pooled), dtype=pooled.dtype)
    return torch.linalg.solve(shrunk, ones.mean(0) - zeros.mean(0))


def _covariance(pixels: Tensor) -> Tensor:
    centred = pixels - pixels.mean(0)
    return centred.T @ centred / len(pixels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohorts", nargs="+")
    parser.add_argument("--against", help="pseudo_labels.py of another commit, in place of the plain algorithm")
    given = parser.parse_args()
    for cohort in given.cohorts:
        found = samples_of(cohort)
        print(table(against_another(given.against, found) if given.against else compared(Path(cohort).stem, found)))
