"""Regularisers: what may be added to any loss, chosen by `regulariser=NAME`.

They are objectives like the losses; most read only the map, not the labels.
"""
# ruff: noqa: ARG002  # all objectives share one signature; few read all of it

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.losses import Objective
from compseg.comparative.pools import masked_mean
from compseg.errors import require


class DenseNegatives(Objective):
    """`(1 - l) (1/N) sum -log(1 - a)` over the tissue: no pixel of a healthy sample may be active.

    Used in OpenVibSpec (2022), Max-Min (Belharbi et al., arXiv 2011.07221) and NEGEV. OpenVibSpec divides by all pixels
    of the image; here by the N tissue pixels, so that a small spot counts as much as a large one.
    """

    reads = frozenset()

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean of -log(1 - a) of healthy samples, `(B, 1)`."""
        # softplus(z) is -log(1 - a), and stays finite where a rounds to 1.
        return ((1 - labels) * masked_mean(softplus(out.logits[:, :1]), out.tissue)).unsqueeze(1)


class OutsideTissue(Objective):
    """`(1/(H W)) sum over non-tissue of -log(1 - a)`: no activation outside the tissue (OpenVibSpec, 2022).

    The one objective that reads pixels outside the tissue; pools never do. Useful where people look at whole maps, or
    where later images have no tissue mask.
    """

    reads = frozenset()

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The sum of -log(1 - a) outside the tissue, divided by all H W pixels, `(B, 1)`."""
        return softplus(out.logits[:, :1]).where(~out.tissue, 0).flatten(1).mean(1, keepdim=True)


class SizePenalty(Objective):
    """Squared distance of the mean activation m from [lower, upper], or from 0 for healthy samples.

    Kervadec et al. (MedIA 2019, arXiv 1805.04628) formulate it in pixels, with V the sum of a:
    `((V - A)^2 [V < A] + (V - B)^2 [V > B]) / |Omega|`. In fractions of the tissue, V = m N, it is the same at every
    resolution. m is the mean activation, for every pool of the head.

    Args:
        lower: Smallest disease fraction of a disease sample; the paper's alpha.
        upper: Largest; the end of the plateau in the authors' later code.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: The bounds are not 0 <= lower <= upper <= 1.
    """

    reads = frozenset()

    def __init__(self, lower: float = 0.1, upper: float = 0.85, weight: float = 1.0) -> None:
        super().__init__(weight)
        holds = 0 <= lower <= upper <= 1
        require(holds, f"objective.lower: expected 0 <= lower <= upper <= 1, got {lower} and {upper}")
        self.lower, self.upper = lower, upper

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The squared distance, `(B, 1)`."""
        # Not out.x, which is the mean only where the head pools by it.
        mean = masked_mean(out.activation, out.tissue)
        beyond = (self.lower - mean).clamp(min=0) + (mean - self.upper).clamp(min=0)
        return (labels * beyond.square() + (1 - labels) * mean.square()).unsqueeze(1)


class Entropy(Objective):
    """Mean entropy of the tissue pixels, `-(1/N) sum a log a + (1 - a) log(1 - a)`, in [0, log 2] nats.

    Compared in the survey of weakly supervised histology of Rony et al. (MELBA 2023). Keep the weight small: it also
    hardens early mistakes.
    """

    reads = frozenset()

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean entropy over the tissue, `(B, 1)`."""
        z = out.logits[:, :1]
        # log a = z - softplus(z) and log(1 - a) = -softplus(z): no logarithm of 0.
        return masked_mean(softplus(z) - out.activation * z, out.tissue).unsqueeze(1)


class TotalVariation(Objective):
    """Mean `|a_i - a_j|` over all pairs of 4-neighbours in the tissue (after Rudin, Osher and Fatemi, 1992)."""

    reads = frozenset()

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean step between neighbours, `(B, 1)`."""
        a, m = out.activation, out.tissue
        down, right = (m[..., 1:, :] & m[..., :-1, :]), (m[..., 1:] & m[..., :-1])
        steps = (a[..., 1:, :] - a[..., :-1, :]).abs().where(down, 0).flatten(1).sum(1, keepdim=True)
        steps = steps + (a[..., 1:] - a[..., :-1]).abs().where(right, 0).flatten(1).sum(1, keepdim=True)
        pairs = down.flatten(1).sum(1, keepdim=True) + right.flatten(1).sum(1, keepdim=True)
        return steps / pairs.clamp(min=1)


class SpectralCRF(Objective):
    """Pairwise energy of a conditional random field whose links are strong between pixels of similar spectra.

    `(1/P) sum_ij w_ij (a_i (1 - a_j) + a_j (1 - a_i))` over the P pairs of tissue pixels at most `radius` rows and
    columns apart: the relaxed Potts energy `S^T W (1 - S)` of Tang et al. (ECCV 2018, arXiv 1803.09569). With d_ij the
    distance between two pixels' spectra in the network's input, `w_ij = exp(-d_ij^2 / (2 mean d^2))`, the mean over the
    sample's pairs: the bandwidth of Boykov and Jolly (ICCV 2001) as GrabCut (Rother et al. 2004) sets it, which fits
    any number of channels and any noise. Unlike `TotalVariation` it allows a boundary where the spectra change; like
    it, it prefers no region to a small one.

    Args:
        radius: In pixels, 1 or more: 1 links a pixel to its eight neighbours, 2 to the 24 around it.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: `radius` is below 1.
    """

    reads = frozenset({"image"})

    def __init__(self, radius: int = 2, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(radius >= 1, f"regularisers.spectral_crf.radius: expected 1 or more pixels, got {radius}")
        half = [(down, right) for down in range(radius + 1) for right in range(-radius, radius + 1)]
        self.offsets = [(down, right) for down, right in half if down or right > 0]  # each pair once

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean energy of a pair, `(B, 1)`.

        Raises:
            ValueError: `out` has no network input.
        """
        if out.image is None:
            raise ValueError("out.image: SpectralCRF expected the network input, got None")
        linked, distances = self._links(out.image, out.tissue)
        count = torch.cat([link.flatten(1) for link in linked], dim=1).sum(1).clamp(min=1)
        mean = _sum_over_links(distances, linked) / count
        # Where all spectra are equal the mean is 0, and so is every distance: weights of 1, not NaN.
        scale = (2 * mean).clamp(min=torch.finfo(mean.dtype).tiny).view(-1, 1, 1, 1)
        energies = []
        for offset, distance in zip(self.offsets, distances, strict=True):
            a, b = _pixels_and_partners(out.activation, *offset)
            energies.append(torch.exp(-distance / scale) * (a * (1 - b) + b * (1 - a)))
        return (_sum_over_links(energies, linked) / count).unsqueeze(1)

    @torch.no_grad()  # the image is data: a graph of its differences would cost memory for nothing
    def _links(self, image: Tensor, tissue: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each offset: which pairs lie in tissue, bool, and their mean squared difference over the channels."""
        linked, distances = [], []
        for offset in self.offsets:
            here, there = _pixels_and_partners(tissue, *offset)
            one, other = _pixels_and_partners(image, *offset)
            linked.append(here & there)
            distances.append((one - other).square().mean(1, keepdim=True))
        return linked, distances


def _pixels_and_partners(x: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Pixels of `(B, C, H, W)` and those `down` rows below and `right` columns to the right, where both exist."""
    rows, columns = max(x.shape[-2] - down, 0), max(x.shape[-1] - abs(right), 0)
    left, across = max(-right, 0), max(right, 0)
    return x[..., :rows, left : left + columns], x[..., down : down + rows, across : across + columns]


def _sum_over_links(values: list[Tensor], linked: list[Tensor]) -> Tensor:
    """The sum over all linked pairs of each sample, `(B,)`."""
    return torch.stack([value.where(link, 0).sum((1, 2, 3)) for value, link in zip(values, linked, strict=True)]).sum(0)


class RotationConsistency(Objective):
    """`(1/N) sum (a_i - a'_i)^2` over the tissue, a' the activation of the flipped or rotated image, brought back.

    After Li et al. (arXiv 1903.00348), who ask it of an averaged network, and the equivariance loss of SEAM (Wang et
    al., CVPR 2020, arXiv 2004.04581), which takes the absolute value. Tissue has no upright: what a map says about a
    pixel must not depend on how the slide lay. Rotating training samples (`augmentation=flip_rotate90`) asks the same,
    one orientation at a time; here one step compares two, and the gradient runs through both.
    """

    reads = frozenset({"rotated"})

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The mean squared difference, `(B, 1)`.

        Raises:
            ValueError: `out` has no second activation.
        """
        # By what it reads, so that a subclass needs no more than another name there.
        (view,) = self.reads
        other: Tensor | None = getattr(out, view)
        if other is None:
            raise ValueError(f"out.{view}: {type(self).__name__} expected a second activation, got None")
        return masked_mean((out.activation - other).square(), out.tissue).unsqueeze(1)


class FlipConsistency(RotationConsistency):
    """The same for flips alone: left-right, up-down, both. For pictures with an up that never lie on their side.

    A sample's label does not say where in the network's receptive field a region is, so the whole map may be shifted
    against what it stands for, above it, say. Flipped, it would be below: only a map that lies on its region flips as
    its image does (docs/research/lab-log.md).
    """

    reads = frozenset({"flipped"})


class MeanTeacher(RotationConsistency):
    """`(1/N) sum (a_i - a'_i)^2` over the tissue, a' by the averaged network (Tarvainen, Valpola, arXiv 1703.01780).

    The averaged network has the exponential moving average (EMA) of the segmenter's weights: after each step
    `theta' <- mu theta' + (1 - mu) theta`. It sees the image flipped or rotated, which is the source's "different
    noise", and its activation is brought back into place; no gradient runs through it. The source raises the weight
    slowly from 0; here it is constant. The extracted segmenter is the trained one, not the average.

    Args:
        mu: In [0, 1): the average looks back over about 1 / (1 - mu) steps. The source has 0.99 at first and 0.999
            later.
        weight: Factor in a `Sum`.

    Raises:
        CompsegError: `mu` is not in [0, 1).
    """

    reads = frozenset({"ema"})

    def __init__(self, mu: float = 0.99, weight: float = 1.0) -> None:
        super().__init__(weight)
        require(0 <= mu < 1, f"regularisers.mean_teacher.mu: expected a number in [0, 1), got {mu}; 0.99 is usual")
        self.mu = mu
