"""What the maps rest on: spectra inside and outside the region, and which channels matter to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compseg.cohort import Cohort
from compseg.evaluation.curves import SampleMap
from compseg.evaluation.run import Evaluation, Mapped
from compseg.evaluation.shortcuts import cue_values, thinned
from compseg.evaluation.subject import Subject, adaptation
from compseg.inference import Threshold
from compseg.inference.spread import Spread, spread_of
from compseg.plots.overlay import RGB, as_picture
from compseg.samples import Image, Mask
from compseg.sums import part_means

SPECTRA_A_SAMPLE = 200
EXPLAINED = 3  # disease samples whose map is explained: each costs a pass of the network for each hidden part
PARTS = 16  # of the axis, hidden one at a time
SIDE = 64  # pixels of what is explained of a sample

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What was seen of a judged sample's image when it was read.

    Attributes:
        picture: `(h, w, 3)`, for people.
        cues: See `compseg.evaluation.shortcuts.cue_values`.
        spectra: Mean spectra `(4, C)`: as stored, inside and outside the region, and the same of what the network
            reads; NaN where a part has no pixel. None where channels are no spectral axis.
        pixels: Of a disease sample, some spectra `(n, C)` as stored, inside and outside; likewise None.
        given: `(n, C, h, w)` what the network reads around the region, or each of an ensemble's n, and `inside`,
            `(h, w)`, the region there; of disease samples that are explained.
        inside: See `given`.
        spread: `(H, W)` how far the activation differs between views of the sample; None where that was not asked for.
    """

    picture: RGB
    cues: dict[str, float]
    spectra: Floats | None = None
    pixels: tuple[Floats, Floats] | None = None
    given: Tensor | None = None
    inside: Mask | None = None
    spread: Floats | None = None


@dataclass(frozen=True)
class Importance:
    """What each channel adds to the network's logit inside the region, mean over the pixels of some disease samples.

    Zero stands for the background: what is hidden is replaced by the sample's ordinary tissue where the network reads
    contrasts, else by the mean of the training samples.

    Attributes:
        samples: How many samples.
        gradient: `(C,)` gradient times input; None where the map has none, as one that is made of gradients.
        occlusion: `(C,)` how far the logit falls where a channel's part of the axis is hidden.
        linear: `(C,)` the filter of the linear pseudo-labeller; None where there is none.
    """

    samples: int
    gradient: Floats | None
    occlusion: Floats
    linear: Floats | None


class Inspector:
    """Looks at each judged sample while its image is in memory.

    Args:
        subject: What is judged.
        threshold: The one that it is judged with.
        uncertainty: Whether to map how far activations differ between views.
    """

    def __init__(self, subject: Subject, threshold: Threshold, uncertainty: bool = False) -> None:
        self.cohort, self.segmenter, self.threshold = subject.cohort, subject.segmenter, threshold
        self.by_truth = any(_truth_marks(self.cohort, info.name) for info in subject.infos)
        disease = [info for info in subject.infos if info.label]
        self.explained = {info.name for info in thinned(disease, EXPLAINED)}
        self.uncertainty, self.generator = uncertainty, np.random.default_rng(0)

    def __call__(self, mapped: Mapped) -> Seen:
        """What is seen of one sample."""
        item, given = mapped.item, mapped.given
        thumbnail = self.cohort.thumbnail(item.info.name)
        region = self._region(item)
        spectra, pixels = self._spectra(mapped, region) if self.segmenter.channels.spectral else (None, None)
        window = _window(region)
        explained = item.info.name in self.explained and region.any()
        return Seen(
            picture=as_picture(mapped.stored, self.cohort.channels, item.tissue) if thumbnail is None else thumbnail,
            cues=cue_values(mapped.stored, item.tissue),
            spectra=spectra,
            pixels=pixels,
            given=given[:, :, *window].clone() if explained else None,
            inside=region[window] if explained else None,
            spread=spread_of(self.segmenter, given, item.tissue) if self.uncertainty else None,
        )

    def _region(self, item: SampleMap) -> Mask:
        """`(H, W)`: the expert's region; where nobody has marked any, and in healthy samples, the map's."""
        marked = self.threshold.apply(item.activation, item.tissue)
        return item.region if self.by_truth and item.info.label else marked

    def _spectra(self, mapped: Mapped, region: Mask) -> tuple[Floats, tuple[Floats, Floats] | None]:
        """See `Seen.spectra` and `Seen.pixels`."""
        item, image = mapped.item, mapped.image
        parts = (region, item.tissue & ~region)
        flat = [part.ravel() for part in parts]
        stored = part_means(image.reshape(-1, image.shape[2]), flat)
        read = np.mean([part_means(own.flatten(1).T, flat) for own in mapped.given], axis=0)
        pixels = None
        if item.info.label and (item.truth is not None or not self.by_truth):
            pixels = _some(image, parts[0], self.generator), _some(image, parts[1], self.generator)
        return np.concatenate([stored, read]), pixels


def _truth_marks(cohort: Cohort, name: str) -> bool:
    truth = cohort.truth(name)
    return truth is not None and bool(truth.any())


def spread_in(found: Evaluation, item: SampleMap) -> Spread:
    """How far the activation of a sample differs between its views, `(H, W)`."""
    image = adaptation(found.cohort, found.segmenter)(found.cohort.image(item.info.name))
    return spread_of(found.segmenter, found.segmenter.network_input(image, item.tissue), item.tissue)


def _some(image: Image, part: Mask, generator: np.random.Generator) -> Floats:
    rows, columns = part.nonzero()
    some = generator.permutation(len(rows))[:SPECTRA_A_SAMPLE]
    return image[rows[some], columns[some]].astype(np.float32)


def _window(region: Mask) -> tuple[slice, slice]:
    """A window of at most `SIDE` pixels a side around the middle of a region."""
    middle = [int(np.median(places)) if len(places) else 0 for places in region.nonzero()]
    first = [max(0, min(place - SIDE // 2, size - SIDE)) for place, size in zip(middle, region.shape, strict=True)]
    return slice(first[0], first[0] + SIDE), slice(first[1], first[1] + SIDE)


def importance(found: Evaluation, seen: dict[str, Seen]) -> Importance | None:
    """Which channels the maps of disease samples rest on; None where no map has a region, or channels have no axis."""
    ready = [(each.given, each.inside) for each in seen.values() if each.given is not None and each.inside is not None]
    if not ready or not found.segmenter.channels.spectral:
        return None
    gradients, falls, parts = [], [], found.segmenter.parts()
    for given, inside in ready:
        mask = torch.from_numpy(inside).to(given.device)
        for part, own in zip(parts, given[:, None], strict=True):
            if (gradient := _gradient(part.model, own, mask)) is not None:
                gradients.append(gradient)
            falls.append(_falls(part.model, own, mask))
    filters = [part.pseudo_labels.filter.cpu().numpy() for part in parts if part.pseudo_labels is not None]
    return Importance(
        samples=len(ready),
        gradient=np.mean(gradients, axis=0) if gradients else None,
        occlusion=np.mean(falls, axis=0),
        linear=np.mean(filters, axis=0) if filters else None,
    )


def _logit(model: torch.nn.Module, given: Tensor, inside: Tensor) -> Tensor:
    logit: Tensor = model(given).float()[0, 0][inside].mean()
    return logit


def _gradient(model: torch.nn.Module, given: Tensor, inside: Tensor) -> Floats | None:
    # A tensor made in inference mode can have no gradient, its clone can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = given.clone().requires_grad_()
        logit = _logit(model, leaf, inside)
        if not logit.requires_grad:
            return None
        (slope,) = torch.autograd.grad(logit, leaf)
        return np.asarray((slope * leaf).detach().sum((0, 2, 3)).cpu().numpy(), np.float32)


@torch.no_grad()
def _falls(model: torch.nn.Module, given: Tensor, inside: Tensor) -> Floats:
    """`(C,)`: how far the logit falls where a channel's part of the axis is hidden."""
    whole, fall = float(_logit(model, given, inside)), np.zeros(given.shape[1], np.float32)
    for part in parts_of(given.shape[1]):
        hidden = given.clone()
        hidden[:, part] = 0
        fall[part] = whole - float(_logit(model, hidden, inside))
    return fall


def parts_of(channels: int) -> Sequence[slice]:
    """At most `PARTS` parts of an axis, of about the same number of channels each."""
    edges = np.linspace(0, channels, min(PARTS, channels) + 1).round().astype(int)
    return [slice(int(first), int(last)) for first, last in pairwise(edges)]
