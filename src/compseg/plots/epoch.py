"""The pictures of an epoch: maps with the truth's outline, histogram, ROC and spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from compseg.plots.figures import Counts, Floats, Spectra, histogram, roc, spectra
from compseg.plots.gallery import Tile, gallery, paint_activation, vmax_of
from compseg.plots.overlay import RGB, as_rgb
from compseg.plots.style import CLASS_COLOURS, pixels
from compseg.samples import Channels, Image, Mask, SampleInfo

FAINTEST = 0.05  # activation that gets the brightest colour at least, so that noise of an empty map stays dark


@dataclass(frozen=True)
class Preview:
    """A validation sample and its map, as the pictures of an epoch show it.

    Attributes:
        info: Name and label.
        image: `(H, W, C)` as stored.
        thumbnail: `(h, w, 3)` uint8 for people, or None: the image is shown.
        activation: `(H, W)` in [0, 1].
        tissue: `(H, W)` bool.
        truth: `(H, W)` bool, or None where there is none.
        x: Pooled activation.
    """

    info: SampleInfo
    image: Image
    thumbnail: NDArray[np.uint8] | None
    activation: NDArray[np.float32]
    tissue: Mask
    truth: Mask | None
    x: float


def epoch_pictures(
    previews: Sequence[Preview],
    counts: Mapping[str, Floats],
    curves: Mapping[str, tuple[Floats, Floats]],
    channels: Channels,
    epoch: int,
) -> dict[str, RGB]:
    """All pictures of an epoch by name, `(h, w, 3)` uint8; spectra only for a spectral axis.

    Args:
        previews: Some validation samples.
        counts: Tissue pixels of all validation samples by class (`disease`, `healthy`), `(B,)` in even bins of
            activation from 0 to 1.
        curves: ROC over samples: rates `(K,)` by the words of the legend.
        channels: The channel axis.
        epoch: Its number.
    """
    bars = [Counts(f"{name} samples", values, CLASS_COLOURS[name]) for name, values in counts.items()]
    figures = {
        "gallery": _gallery(previews, epoch),
        "activations": histogram(bars, f"epoch {epoch}: activations on tissue"),
        "roc": roc(curves, f"epoch {epoch}: samples told apart by x"),
    }
    if channels.spectral and (means := mean_spectra(previews)):
        names = ("tissue weighted by a", "tissue weighted by 1 - a")
        given = Spectra(means[0][None], means[1][None], channels, names=names)
        figures["spectra"] = spectra(given, f"epoch {epoch}: spectra of what is marked and what is not")
    return {name: pixels(figure) for name, figure in figures.items()}


def _gallery(previews: Sequence[Preview], epoch: int) -> Figure:
    """Thumbnail above, activation with the truth's outline below."""
    vmax = vmax_of((sample.activation[sample.tissue] for sample in previews), FAINTEST)
    tiles = [
        Tile(
            sample.info.name,
            f"{'disease' if sample.info.label else 'healthy'}, x {sample.x:.3f}",
            {
                "thumbnail": as_rgb(sample.image if sample.thumbnail is None else sample.thumbnail),
                "activation": paint_activation(sample.activation, sample.tissue, vmax, sample.truth),
            },
        )
        for sample in previews
    ]
    return gallery(tiles, f"epoch {epoch}: activation from 0 to {vmax:.2g}, truth outlined in blue", across=True)


def mean_spectra(previews: Sequence[Preview]) -> tuple[Floats, Floats] | None:
    """Mean spectra `(C,)` of the disease samples' tissue, weighted by a and by 1 - a: no threshold is needed for them.

    None without disease samples, or where all of their tissue is marked, or none.
    """
    disease = [sample for sample in previews if sample.info.label]
    if not disease:
        return None
    weights = np.concatenate([sample.activation[sample.tissue] for sample in disease]).astype(np.float64)
    values = np.concatenate([sample.image[sample.tissue] for sample in disease]).astype(np.float64)
    marked, unmarked = weights.sum(), (1 - weights).sum()
    # Put this way, the NaN of a run that diverged gives no picture either.
    if not (marked > 0 and unmarked > 0):
        return None
    return weights @ values / marked, (1 - weights) @ values / unmarked
