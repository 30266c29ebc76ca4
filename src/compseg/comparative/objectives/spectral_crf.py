"""Regulariser: what looks alike is marked alike."""

from __future__ import annotations

import torch
from torch import Tensor

from compseg.comparative.head import HeadOutput
from compseg.comparative.numerics import require
from compseg.comparative.objectives.base import Objective


class SpectralCRF(Objective):
    """Pairwise energy of a conditional random field whose links are as strong as two spectra are alike.

    `(1/P) sum_ij w_ij (a_i (1 - a_j) + a_j (1 - a_i))` over the P pairs of tissue pixels that lie at most `reach` rows
    and columns apart: the relaxed Potts energy `S^T W (1 - S)` of Tang et al. (ECCV 2018, arXiv 1803.09569). With d_ij
    the distance between two pixels' spectra as the network gets them, `w_ij = exp(-d_ij^2 / (2 mean d^2))`, the mean
    over the sample's pairs: the bandwidth of Boykov and Jolly (ICCV 2001) as GrabCut (Rother et al. 2004) sets it, so
    that neither the number of channels nor their noise asks for another. Unlike `TotalVariation` it lets a boundary be
    where the spectra change; like it, it would rather have no region than a small one.

    Args:
        reach: In pixels, 1 or more: 1 links a pixel to its eight neighbours, 2 to the 24 around it.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: `reach` is below 1.
    """

    reads = frozenset({"image"})

    def __init__(self, reach: int = 2, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(reach >= 1, f"regularisers.spectral_crf.reach: expected 1 or more pixels, got {reach}")
        forward = [(down, right) for down in range(reach + 1) for right in range(-reach, reach + 1)]
        self.offsets = [(down, right) for down, right in forward if down or right > 0]

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The mean energy of a pair, `(B, 1)`.

        Raises:
            ValueError: The network input does not stand in `out`.
        """
        if out.image is None:
            raise ValueError("out.image: SpectralCRF expected the network input, got None")
        linked, distances = self._links(out.image, out.tissue)
        count = torch.cat([link.flatten(1) for link in linked], dim=1).sum(1).clamp(min=1)
        mean = total(distances, linked) / count
        scale = (2 * mean).clamp(min=torch.finfo(mean.dtype).tiny).view(-1, 1, 1, 1)
        energies = []
        for offset, distance in zip(self.offsets, distances, strict=True):
            a, b = pixels_and_partners(out.activation, *offset)
            energies.append(torch.exp(-distance / scale) * (a * (1 - b) + b * (1 - a)))
        return (total(energies, linked) / count).unsqueeze(1)

    @torch.no_grad()
    def _links(self, image: Tensor, tissue: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each offset: which pairs are of tissue, bool, and their mean squared difference over the channels."""
        linked, distances = [], []
        for offset in self.offsets:
            here, there = pixels_and_partners(tissue, *offset)
            one, other = pixels_and_partners(image, *offset)
            linked.append(here & there)
            distances.append((one - other).square().mean(1, keepdim=True))
        return linked, distances


def pixels_and_partners(x: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Pixels of `(B, C, H, W)` and those `down` rows below and `right` columns to the right, where there are both."""
    rows, columns = max(x.shape[-2] - down, 0), max(x.shape[-1] - abs(right), 0)
    left, across = max(-right, 0), max(right, 0)
    return x[..., :rows, left : left + columns], x[..., down : down + rows, across : across + columns]


def total(values: list[Tensor], linked: list[Tensor]) -> Tensor:
    """The sum over all linked pairs of each sample, `(B,)`."""
    return torch.stack([value.where(link, 0).sum((1, 2, 3)) for value, link in zip(values, linked, strict=True)]).sum(0)
