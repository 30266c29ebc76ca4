"""The pseudo-labeller: what is stored with a segmenter, and gives it contrasts and marks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from compseg.comparative.pseudo_labels.base import PseudoLabels
from compseg.comparative.pseudo_labels.choice import BETTER_SIDE, HALVINGS, BestFit, best_at, best_of
from compseg.comparative.pseudo_labels.marking import ROUNDS, Fit, mark
from compseg.comparative.pseudo_labels.spectra import local_mean, sum_of_spectra

# Sides in pixels of the neighbourhood, tried in this order where none is given.
SIDES = (5, 9, 3, 1)


class FisherPseudoLabels(PseudoLabels):
    """Self-trained Fisher discriminant on the spectra of small neighbourhoods, each compared with its own sample.

    It starts with Fisher's discriminant (Fisher 1936) between the pixels of disease and of healthy samples. Then, until
    the marked region converges:

    1. subtract from every pixel the mean of its own sample's unmarked pixels, so that patient, thickness and array
       cancel;
    2. mark the share pi of disease-sample pixels that score highest, with pi the largest excess of disease over healthy
       samples above any level (Youden's index of the two distributions, an estimate of the diseased share);
    3. refit the discriminant between marked and all other pixels.

    Step 1 needs unmarked pixels that are healthy. In samples that are disease throughout, they are not: there the mean
    of the highest-scoring healthy sample can stand in wherever a sample's own mean scores higher still. And in tiles of
    a scene that show one field or another, the rest of a sample is no background at all, and step 1 does harm. Neither
    case may be assumed: in a new array all samples may score higher than any healthy one did. So the pseudo-labeller is
    fitted to halves of the samples in each `ReferenceMode`, and uses another than the first only if its marked share
    predicts the labels of the other halves better.

    A network that reads the *contrast*, each pixel less that same background spectrum, generalises to new patients,
    arrays and instruments, because anything they add to all spectra of a sample cancels.

    Args:
        channels: Number of channels C of the preprocessed image.
        neighbourhood: Side in pixels, odd, of the square whose tissue mean is scored: larger means less noise, but
            coarser edges. `auto`: that of `SIDES` by which held-out labels are told best.
        supervises: Whether the objective takes the marked region for truth; if not, the network is given the contrast
            and nothing else.
        pixels: How many tissue pixels to fit to, of all samples together.
        shrinkage: Of covariances towards a multiple of the identity.

    Attributes:
        neighbourhood: As given, or chosen by fitting.
        tried: What held-out labels said of each neighbourhood that was tried, by its side in pixels.
        highest: Mean spectrum of the highest-scoring healthy sample.
        share: pi of the last round; and the others of `PseudoLabels`, `small` by `SmallTargets`.
        own: Whether a pixel is compared with its own sample.
        stand_in: Whether the highest-scoring healthy sample replaces a sample's own mean that scores higher.
    """

    rounds = ROUNDS
    contrasts = True

    filter: Tensor
    level: Tensor
    highest: Tensor
    share: Tensor
    own: Tensor
    stand_in: Tensor

    def __init__(
        self,
        channels: int,
        neighbourhood: int | Literal["auto"] = 5,
        supervises: bool = True,
        pixels: int = 200_000,
        shrinkage: float = 1e-3,
    ) -> None:
        super().__init__()
        self.sides = SIDES if neighbourhood == "auto" else (neighbourhood,)
        self.neighbourhood, self.supervises, self.pixels, self.shrinkage = self.sides[0], supervises, pixels, shrinkage
        self.tried: dict[int, float] = {}
        self.register_buffer("filter", torch.zeros(channels))
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("highest", torch.zeros(channels))
        self.register_buffer("share", torch.tensor(0.0))
        self.register_buffer("own", torch.tensor(True))
        self.register_buffer("stand_in", torch.tensor(False))

    @torch.no_grad()
    def fit(
        self,
        samples: Iterable[tuple[Tensor, Tensor, int]],
        count: int,
        seed: int = 0,
        rounds: Iterable[object] = range(ROUNDS),
    ) -> None:
        """Find the filter and the level.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time; gone through once, and once more for each neighbourhood where several are tried.
            count: Number of samples, each of which contributes its share of `pixels`.
            seed: Of the choice of pixels.
            rounds: Of marking and refitting, at most; whoever gives them sees how far it is.
        """
        pixels = max(1, self.pixels // count)

        def at(side: int, halvings: int) -> BestFit:
            return best_at(side, samples, pixels, count, seed, self.shrinkage, rounds, halvings)

        found = [at(self.sides[0], 1)]
        # Not where nothing is held out: then nothing can be chosen by it.
        if len(self.sides) > 1 and found[0].held_out_auc < 1 - BETTER_SIDE:
            found = [at(side, HALVINGS) for side in self.sides]
        best = best_of(
            found, [each.held_out_auc for each in found], [BETTER_SIDE * (each is not found[0]) for each in found]
        )
        self.tried = {each.side: each.held_out_auc for each in found}
        self.neighbourhood, self.small = best.side, best.small
        self.held_out_auc, self.low_share = best.held_out_auc, best.low_share
        for name, value in best.fit._asdict().items():
            getattr(self, name).copy_(value)

    def found(self) -> Iterator[str]:
        """See `PseudoLabels.found`; by which neighbourhood, too."""
        if len(self.tried) > 1:
            others = ", ".join(f"{side}: {auc:.2f}" for side, auc in self.tried.items() if side != self.neighbourhood)
            aim = "for targets of a few pixels" if self.small else "for regions"
            side = f"{self.neighbourhood} x {self.neighbourhood} pixels"
            yield f"pseudo-labels: {side} {aim}: held-out AUC {self.held_out_auc:.2f} ({others})"
        sees = "contrasts within samples" if self.own else "samples as they are"
        found = f"finds {self.share:.1%} of the disease samples' tissue to differ"
        proof = f"tells held-out labels with an AUC of {self.held_out_auc:.2f}"
        learns = " and learns it" if self.supervises else ""
        yield f"pseudo-labels: {found}, which {proof}; the network sees {sees}{learns}"

    def forward(self, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """The marked region, `(B, 1, H, W)` bool: nothing in healthy samples."""
        return self.marked(self.score(image, tissue), tissue) & (labels > 0)[:, None, None, None]

    def score(self, image: Tensor, tissue: Tensor) -> Tensor:
        """How much a pixel's neighbourhood looks like disease.

        Preprocessed `(B, C, H, W)` and tissue `(B, 1, H, W)` to `(B, 1, H, W)`.
        """
        # Filtering first leaves one channel to average, and both are linear.
        return self.averaged(torch.einsum("bchw,c->bhw", image, self.filter)[:, None], tissue)

    def averaged(self, filtered: Tensor, tissue: Tensor) -> Tensor:
        """The score of spectra's products with the filter, all `(B, 1, H, W)`."""
        return local_mean(filtered, tissue, self.neighbourhood)

    def marked(self, score: Tensor, tissue: Tensor) -> Tensor:
        """Where scores `(B, 1, H, W)` of whole samples indicate disease, for any label: bool of that shape."""
        return mark(score, tissue, Fit(*(getattr(self, name) for name in Fit._fields)))

    def contrast(self, image: Tensor, tissue: Tensor) -> Tensor:
        """The input of the network: each pixel less the background spectrum of its own sample, zero off tissue.

        Preprocessed images `(B, C, H, W)` of whole samples, and tissue `(B, 1, H, W)`, to `(B, C, H, W)`. Where pixels
        are not compared with their own sample (`own`), images stay as they are.
        """
        ordinary = tissue & ~self.marked(self.score(image, tissue), tissue)
        background = self.background(sum_of_spectra(image, ordinary), ordinary.sum((2, 3)))
        return self.subtract_background(image, tissue, background)

    def background(self, total: Tensor, count: Tensor) -> Tensor:
        """What a sample's pixels are compared with: the mean spectrum of its unmarked pixels.

        With `stand_in`, the spectrum of the highest-scoring healthy sample replaces a mean that scores higher. From the
        sum of the unmarked spectra `(B, C)` and their number `(B, 1)` to `(B, C)`.
        """
        mean = total / count.clamp_min(1)
        lower = (mean @ self.filter)[:, None] <= self.highest @ self.filter
        own = (count > 0) & (lower | ~self.stand_in)
        return torch.where(own, mean, self.highest) * self.own

    def subtract_background(self, image: Tensor, tissue: Tensor, background: Tensor) -> Tensor:
        """The image `(B, C, H, W)` less a background spectrum `(B, C)` on tissue."""
        # Multiplied, because torch.where would lose the channels_last layout; preprocessing leaves no NaN.
        return (image - background[:, :, None, None]).mul_(tissue)
