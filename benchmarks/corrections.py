"""EMSC and resonant Mie correction against biospectools, the code of the group that published them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import Row, seconds, side_by_side
from hydra.utils import instantiate

from compseg.config import compose
from compseg.preprocessing import EMSC, Preprocess, ResonantMie

SPOT = 256 * 256  # pixels
COMPONENTS = 7


def measure(_folder: Path, pixels: int = SPOT, ours: int = 8192, theirs: int = 24) -> list[Row]:
    """Rows of the table.

    Args:
        pixels: Of a spot.
        ours: Spectra that we iterate.
        theirs: Spectra that the reference iterates, one by one.
    """
    from biospectools.preprocessing import me_emsc as biospectools

    axis, spectra = _spectra(pixels)
    mean, image = spectra.mean(0), torch.from_numpy(spectra)[None, None].permute(0, 3, 1, 2)
    tissue = torch.ones_like(image[:, :1], dtype=torch.bool)
    emsc, reference = Preprocess(len(axis), [EMSC(axis, mean.tolist())]), biospectools.EMSC(mean, axis)
    spot = side_by_side(lambda: emsc(image, tissue), lambda: reference.transform(spectra, check_correlation=False), 2)

    correction = ResonantMie(axis, mean.tolist(), COMPONENTS)
    some, few = torch.from_numpy(spectra[:ours]), spectra[:: max(1, pixels // theirs)].astype(np.float64)
    correction.correct(some[:64])  # makes its series
    fit = correction.correct(some)
    taken = min(seconds(lambda: correction.correct(some)) for _ in range(2))
    slow = biospectools.MeEMSC(mean.astype(np.float64), axis, n_components=COMPONENTS)
    slow_taken, details = _timed(lambda: slow.transform(few, details=True)[1])
    iterations = (fit.iterations + correction.patience).clamp(correction.patience + 2, correction.iterations)
    slow_iterations = sum(len(criterion.scores) for criterion in details.criterions)
    each, slow_each = taken / int(iterations.sum()), slow_taken / slow_iterations
    per_spot, slow_spot = (seconds / count * pixels for seconds, count in ((taken, len(some)), (slow_taken, len(few))))
    return [
        Row("EMSC of a spot", spot[0], "biospectools", spot[1]),
        Row("resonant Mie, a spectrum and iteration, ms", each * 1e3, "biospectools", slow_each * 1e3),
        Row(
            f"resonant Mie, a spot: {60 / per_spot:.2f} a minute", per_spot, "biospectools, of a few spectra", slow_spot
        ),
    ]


def _spectra(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Axis `(C,)` and tissue spectra `(count, C)` of the phantom, float32."""
    phantom = instantiate(compose("train").data.source, size=64, channels=450)
    read = [phantom.read(info) for info in phantom.infos()[:4]]
    spectra = np.concatenate([arrays.image[arrays.tissue] for arrays in read]).astype(np.float32)
    return np.array(phantom.channels().values), np.ascontiguousarray(np.resize(spectra, (count, spectra.shape[1])))


def _timed(call):
    results = []
    return seconds(lambda: results.append(call())), results[0]
