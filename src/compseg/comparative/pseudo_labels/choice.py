"""Which way of marking is best, by the labels of samples that it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from compseg.comparative.pseudo_labels.marking import Fit, Marking, ReferenceMode, auc, mark, mark_and_refit
from compseg.comparative.pseudo_labels.small_targets import SmallTargets
from compseg.comparative.pseudo_labels.spectra import Spectra, choose_spectra, parts_of

# The first generalises best: anything that shifts a whole sample, as a new array does, cancels. The others have to
# prove better by this much area under the ROC; where they are needed, they were by .02 to .12
# (docs/research/lab-log.md).
MODES = (ReferenceMode(True, False), ReferenceMode(True, True), ReferenceMode(False, False))
BETTER = 0.01
# Area under the ROC of held-out labels by which another side than the first, or looking for small targets, has to be
# better: on tiles of one scene 9 was by .13, for targets of a few pixels 1 by .2 to .3, elsewhere none by more than .01
# (docs/research/lab-log.md).
BETTER_SIDE = 0.05
# One halving tells a side by its luck: on tiles of one scene 5 had areas of .73 to .86, 9 of .86 to .93, and in one of
# six halvings 5 was not .05 behind (docs/research/lab-log.md). The mean of four has half of that spread.
HALVINGS = 4
SMALL_SIDE = 3  # up to which targets of a few pixels are looked for
LOW = 0.1  # which disease samples count as those of least disease; one sample alone may be marked by mistake
T = TypeVar("T")


class BestFit(NamedTuple):
    """The best fit to neighbourhoods of one size, and what held-out labels say of it; see `FisherPseudoLabels`."""

    side: int
    small: bool
    fit: Fit
    held_out_auc: float
    low_share: float


def best_of(items: Sequence[T], scores: Sequence[float], margins: Sequence[float]) -> T:
    """That of the highest score, each less a margin."""
    return items[max(range(len(items)), key=lambda number: scores[number] - margins[number])]


def best_at(
    side: int,
    samples: Iterable[tuple[Tensor, Tensor, int]],
    each: int,
    count: int,
    seed: int,
    shrinkage: float,
    rounds: Iterable[object],
    halvings: int = 1,
) -> BestFit:
    """Fit to neighbourhoods of one size in every way, and choose by held-out labels.

    Args:
        side: Of the neighbourhood in pixels, odd.
        samples: See `choose_spectra`, as for `each` and `count`.
        each: How many pixels of a sample, at most.
        count: Number of samples.
        seed: Of the choice of pixels and of the halves.
        shrinkage: Of covariances towards a multiple of the identity.
        rounds: Of marking and refitting, at most.
        halvings: How many times the samples are parted in two, by which held-out labels judge.
    """
    spectra = choose_spectra(samples, side, each, count, seed)
    parts = parts_of(spectra, seed, halvings)
    ways: list[tuple[type[Marking], ReferenceMode, float]] = [
        (Marking, mode, BETTER * (mode is not MODES[0])) for mode in MODES
    ]
    if side <= SMALL_SIDE and len(parts) > 1:
        ways.append((SmallTargets, MODES[0], BETTER_SIDE))
    fits = [[kind(spectra, part, mode, shrinkage) for part in parts] for kind, mode, _ in ways]
    mark_and_refit(spectra, [fit for of_way in fits for fit in of_way], rounds)
    aucs, margins = [held_out_auc(spectra, of_way[1:]) for of_way in fits], [margin for _, _, margin in ways]
    (whole, *_), auc_of_best = best_of(list(zip(fits, aucs, strict=True)), aucs, margins)
    marked = shares_of(whole.scores.double(), spectra.sizes, whole.fit)
    low = float(torch.quantile(marked[spectra.disease], LOW))
    return BestFit(side, isinstance(whole, SmallTargets), whole.fit, auc_of_best, low)


def held_out_auc(spectra: Spectra, halves: Sequence[Marking]) -> float:
    """How well the marked share of one half of the samples predicts their labels, fitted to the other half.

    Mean area under the ROC of both ways round, of all pairs of halves; NaN without halves.
    """
    # By the share, because scores hardly tell the modes apart (docs/research/lab-log.md, 2026-11-23).
    aucs = []
    for half in halves:
        held_out, shares = ~half.part.samples, shares_of(half.scores.double(), spectra.sizes, half.fit)
        aucs.append(auc(*(shares[held_out & (spectra.disease == label)] for label in (False, True))))
    return sum(aucs) / len(aucs) if aucs else math.nan


def shares_of(scores: Tensor, sizes: Tensor, fit: Fit) -> Tensor:
    """The share of each sample's pixels that would be marked, `(S,)`, from scores `(N,)` and their numbers `(S,)`."""
    padded = pad_sequence(list(torch.split(scores, sizes.tolist())), batch_first=True)
    there = torch.arange(padded.shape[1], device=sizes.device) < sizes[:, None]
    return mark(padded[:, None, None], there[:, None, None], fit).sum((1, 2, 3)).double() / sizes.clamp_min(1)
