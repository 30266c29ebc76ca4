"""How good a sample is: what of it is tissue, how strong, how noisy, how much of it saturated or dead."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compseg.preprocessing.tissue import amide_weights, signal_to_noise
from compseg.samples import Channels, Image, Mask


class Quality(NamedTuple):
    """Of one sample.

    Attributes:
        kept: Pixels of tissue.
        share: Of all pixels.
        level: Area of amide I of each pixel, else the mean over channels, `(H, W)` float32.
        median: Of it, over the tissue; NaN where there is none. So are the next ones.
        snr: Height of amide I over the noise, median over the tissue; NaN without amide I.
        saturated: Share of the tissue's pixels that stay at the sample's highest value for two channels or more.
        dead: Number of tissue pixels whose channels are all alike, or not finite.
    """

    kept: int
    share: float
    level: NDArray[np.float32]
    median: float
    snr: float
    saturated: float
    dead: int


def quality_of(image: Image, tissue: Mask, channels: Channels) -> Quality:
    """The quality of a sample's image `(H, W, C)` and tissue `(H, W)`."""
    spectra = image[tissue].astype(np.float32)
    kept = len(spectra)
    weights = amide_weights(channels)
    level = image.mean(2, dtype=np.float32) if weights is None else image.astype(np.float32) @ weights
    if not kept:
        return Quality(0, 0.0, level, np.nan, np.nan, np.nan, 0)
    snr = float(np.median(signal_to_noise(spectra[None], channels.values))) if weights is not None else np.nan
    # Of a photograph white is a colour, and two of its channels are no neighbours.
    top = spectra == spectra.max()
    saturated = float((top[:, 1:] & top[:, :-1]).any(axis=1).mean()) if channels.spectral else np.nan
    alike = (np.ptp(spectra, axis=1) == 0) if spectra.shape[1] > 1 else np.zeros(kept, bool)
    dead = int(np.count_nonzero(alike | ~np.isfinite(spectra).all(axis=1)))
    return Quality(kept, kept / tissue.size, level, float(np.median(level[tissue])), snr, saturated, dead)
