"""EMSC and resonant Mie correction against biospectools, the code of the group that published them.

In processor seconds, which other work on the machine changes least; with OMP_NUM_THREADS=1 they are those of one core.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from common import Row
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
    emsc(image, tissue)  # takes its memory
    spot = (
        _taken(lambda: emsc(image, tissue))[0],
        _taken(lambda: reference.transform(spectra, check_correlation=False))[0],
    )

    correction = ResonantMie(axis, mean.tolist(), COMPONENTS)
    some, few = torch.from_numpy(spectra[:ours]), spectra[:: max(1, pixels // theirs)].astype(np.float64)
    correction.correct(some[:64])  # makes its series
    taken, fit = _taken(lambda: correction.correct(some))
    slow = biospectools.MeEMSC(mean.astype(np.float64), axis, n_components=COMPONENTS)
    slow_taken, details = _taken(lambda: slow.transform(few, details=True)[1])
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


def _taken(call):
    """Processor seconds of a call, and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result
