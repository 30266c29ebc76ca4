"""A source whose spectra are corrected once, when the cohort is prepared: for corrections that take their time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.progress import track
from torch import nn

from compseg.cohort.splits import assign_splits
from compseg.preprocessing.pipeline import correct_tissue, with_axis
from compseg.preprocessing.tissue import has_own_tissue, resolve_rule, tissue_of
from compseg.samples import Channels, Image, Mask, SampleArrays, SampleInfo, Source

CONVERGED = 0.9  # share of a sample's spectra below which preparing says so


class Corrected:
    """The samples of a source, their tissue corrected; its provenance says how, so that a segmenter does so, too.

    Args:
        source: Of raw spectra.
        nodes: Corrections in order, as configuration. A `reference` that is null becomes the mean tissue spectrum of
            the training samples, which are read once more for it.
        make: Builds one of them.
        tissue: Rule for samples without a mask; applied before correction.
        splits: As `prepare` takes them.
    """

    def __init__(
        self,
        source: Source,
        nodes: Sequence[Mapping[str, Any]],
        make: Callable[[dict[str, Any]], nn.Module],
        tissue: str,
        splits: Mapping[str, float],
    ) -> None:
        self.source, self.given, self.splits = source, source.channels(), splits
        self.rule = resolve_rule(tissue, self.given)
        if any(node.get("reference", 0) is None for node in nodes):
            mean = self._mean()
            nodes = [{**node, "reference": mean} if node.get("reference", 0) is None else node for node in nodes]
        self.nodes, self.after = with_axis(nodes, self.given, make)
        self.correction = nn.Sequential(*(make(node) for node in self.nodes))

    def infos(self) -> Sequence[SampleInfo]:
        """The source's."""
        return self.source.infos()

    def channels(self) -> Channels:
        """Those that the last correction leaves."""
        return self.after

    def provenance(self) -> dict[str, Any]:
        """The source's, with the corrections and the channels before them."""
        return {**self.source.provenance(), "corrections": self.nodes, "given": self.given.to_dict()}

    def read(self, info: SampleInfo) -> SampleArrays:
        """A sample, corrected on its tissue and zero elsewhere."""
        arrays, tissue = self._read(info)
        image, converged = correct_tissue(self.correction, arrays.image, tissue)
        few = f"less than {CONVERGED:.0%} of the spectra converged in their correction"
        remarks = (*arrays.remarks, *([few] if converged < CONVERGED else []))
        own = has_own_tissue(arrays, self.rule, self.given)
        return SampleArrays(image, tissue, arrays.truth, arrays.thumbnail, remarks, own)

    def _read(self, info: SampleInfo) -> tuple[SampleArrays, Mask]:
        arrays = self.source.read(info)
        return arrays, tissue_of(arrays, self.rule, self.given)

    def _mean(self) -> list[float]:
        """Of the training samples' tissue, each sample with the same weight."""
        training = [info for info in assign_splits(self.infos(), self.splits) if info.split == "train"]
        means = [_mean_of(*self._read(info)) for info in track(training, "Reference of the correction")]
        return [float(value) for value in np.mean([mean for mean in means if mean is not None], axis=0)]


def _mean_of(arrays: SampleArrays, tissue: Mask) -> Image | None:
    return arrays.image[tissue].mean(axis=0, dtype=np.float64) if tissue.any() else None
