"""The activation above which a pixel counts as disease: fitted on validation maps, stored with the segmenter.

The paper chose one threshold by eye on seven validation spots (.35, section 4). Here it is fitted, from truth where
the validation samples have some, else from the maps and the labels alone. `docs/explanation/thresholds.md` derives
each way. What marking healthy tissue costs is weighed against what Dice gains: Dice alone, which knows disease
samples only, is highest where all is marked if the maps say nothing. Shapes: N samples, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compseg.errors import CompsegError
from compseg.evaluation.curves import Curves, SampleMap, curves_of, labels_of, with_disease_truth
from compseg.evaluation.intervals import Floats, percentile_interval, resample
from compseg.inference.threshold import Threshold, ThresholdOrigin

PAPER = 0.35
FALSE_ALARMS = 0.05  # share of healthy tissue that is marked where no disease sample is there to fit to
# A share below this is rounding.
NO_SHARE = 1e-6
REPLICATES = 500


def fit_threshold(val: Sequence[SampleMap], how: str | float, probabilities: bool = False) -> Threshold:
    """The threshold as configured.

    Args:
        val: Validation maps.
        how: `truth`, `probabilities`, `labels`, a number, or `auto`: by truth where there is some, else by
            probabilities where the maps hold such, else by labels.
        probabilities: Whether activations are probabilities, as after training on pseudo-labels.

    Raises:
        CompsegError: For any other word.
    """
    if isinstance(how, int | float):
        return fixed(float(how))
    if how == "auto":
        # Where truth was hidden, probabilities cost up to .04 of the best Dice and labels up to .31
        # (docs/research/lab-log.md, 2026-11-22).
        marked = any(item.truth is not None and item.truth.any() for item in val)
        how = "truth" if marked else "probabilities" if probabilities else "labels"
    fits: dict[str, Callable[[Sequence[SampleMap]], Threshold]] = {
        "truth": fit_from_truth,
        "probabilities": fit_from_probabilities,
        "labels": fit_from_labels,
    }
    if how not in fits:
        raise CompsegError(
            f"threshold={how}: expected auto, truth, probabilities, labels or an activation in [0, 1]; "
            "choose one of these"
        )
    return fits[how](val)


def fixed(value: float = PAPER) -> Threshold:
    """A threshold given beforehand; .35 is the paper's.

    Raises:
        CompsegError: If it is outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise CompsegError(
            f"threshold {value}: expected a value in [0, 1], as activations are; for the paper's use {PAPER}"
        )
    return Threshold(value, f"fixed beforehand at {value:g}", value, value, "fixed")


def fit_from_truth(maps: Sequence[SampleMap], seed: int = 0) -> Threshold:
    """The one threshold with the highest mean Dice over disease samples, less the share of healthy tissue it marks.

    Args:
        maps: Validation maps: disease samples whose truth marks at least one tissue pixel, and healthy samples, are
            used, the others ignored.
        seed: Of the bootstrap.

    Raises:
        CompsegError: If no disease sample has such a truth.
    """
    marked, healthy = with_disease_truth(maps), healthy_with_tissue(maps)
    if not marked:
        raise CompsegError(
            f"threshold from truth: expected a disease sample with a truth mask, got none among {len(maps)} validation "
            "samples; fit it from labels"
        )
    curves = curves_of([*marked, *healthy])
    how = f"fitted to the truth of {len(marked)} validation samples (highest mean Dice)"
    return _of_highest_gain(curves, curves.dice, [*marked, *healthy], seed, how, "truth")


def fit_from_probabilities(maps: Sequence[SampleMap], seed: int = 0) -> Threshold:
    """The threshold with the highest Dice to be expected, where activations are probabilities of disease.

    They are where the segmenter was trained pixel by pixel, by cross-entropy, on pseudo-labels. Of a disease sample
    with tissue activations a, the pixels above t hold sum(a > t) a diseased ones, all of it sum a, so

        Dice(t) = 2 sum_{a > t} a / (|{a > t}| + sum a),

    and its mean over disease samples, less the share of healthy tissue above t, is maximised (Lipton, Elkan and
    Naryanaswamy, ECML 2014: without the second term, the best t is half of the best Dice). It sees no truth, and moves
    with maps that a new array has made fainter.

    Args:
        maps: Validation maps; those with tissue are used.
        seed: Of the bootstrap.

    Returns:
        The fitted threshold; without a disease sample the even odds of .5.
    """
    disease = [item for item in maps if item.info.label == 1 and item.tissue.any()]
    if not disease:
        return Threshold(0.5, "no disease validation sample to fit to: even odds", 0.5, 0.5, "fixed")
    judged = [*disease, *healthy_with_tissue(maps)]
    curves = curves_of(judged)
    total = np.array([item.activation[item.tissue].sum(dtype=np.float64) for item in judged])
    # A sample whose map is empty has an expected Dice of 0 instead of 0 / 0.
    dice = 2 * curves.mass / np.maximum(curves.above + total[:, None], 1e-12)
    how = f"fitted to the probabilities in {len(disease)} validation samples (highest expected Dice)"
    return _of_highest_gain(curves, dice, judged, seed, how, "probabilities")


def healthy_with_tissue(maps: Sequence[SampleMap]) -> list[SampleMap]:
    """The healthy samples that a share of marked tissue can be said of."""
    return [item for item in maps if item.info.label == 0 and item.tissue.any()]


def _of_highest_gain(
    curves: Curves, dice: Floats, maps: Sequence[SampleMap], seed: int, how: str, origin: ThresholdOrigin
) -> Threshold:
    """The level at which the mean of the disease samples' Dice `(N, L)` less the marked healthy share is highest."""
    disease = labels_of(maps) == 1

    def gain(weights: Floats) -> Floats:
        found: Floats = np.average(dice[disease], axis=0, weights=weights[disease])
        if disease.all():
            return found
        return found - np.average(curves.fractions[~disease], axis=0, weights=weights[~disease])

    overall = gain(np.ones(len(maps)))
    if overall.max() < NO_SHARE:
        return nothing_found("no level gains more in disease samples than it marks in healthy ones")
    weights = resample([item.info for item in maps], REPLICATES, seed)
    low, high = percentile_interval(np.array([_best_level(curves.levels, gain(w)) for w in weights]))
    return Threshold(_best_level(curves.levels, overall), how, low, high, origin)


def nothing_found(why: str) -> Threshold:
    """The threshold that marks nothing, which no activation exceeds."""
    return Threshold(1.0, f"{why}: it marks nothing", 1.0, 1.0, "fallback")


def fit_from_labels(maps: Sequence[SampleMap], seed: int = 0) -> Threshold:
    """The threshold with the highest Dice that is to be expected, knowing the labels alone.

    Let F(t) and U(t) be the fractions of healthy and of disease samples' tissue that are above t, averaged over
    samples. Disease samples mix disease, share pi, with tissue like that of healthy samples: U = pi TPR + (1 - pi) F.
    As TPR <= 1, no (U - F) / (1 - F) can exceed pi, and where all of the disease is above t it equals pi: its maximum
    estimates pi. Then pi TPR = U - (1 - pi) F is the hit area, U the marked and pi the true area, so

        Dice(t) = 2 (U - (1 - pi) F) / (U + pi),

    and Dice(t) - F(t) is maximised. The bound on pi is that of Blanchard, Lee and Scott, JMLR 11:2973 (2010), over the
    sets {a > t}.

    Args:
        maps: Validation maps of both classes; truth is not looked at.
        seed: Of the bootstrap.

    Returns:
        The fitted threshold. Where the maps hold no answer the one that marks nothing; without disease samples the
        level that 5 % of healthy tissue exceeds, without healthy ones the paper's. `how` and `origin` say so.
    """
    maps = [item for item in maps if item.tissue.any()]
    disease = labels_of(maps) == 1
    # True of no samples at all as well: then nothing can be fitted either.
    if disease.all():
        return Threshold(PAPER, f"no healthy validation sample to fit to: the paper's {PAPER}", PAPER, PAPER, "fixed")
    curves = curves_of(maps)
    if not disease.any():
        return _of_false_alarms(curves)
    value, share = _level_and_share(curves, disease, np.ones(len(maps)))
    if value is None:
        return nothing_found("disease samples are no more active than healthy ones")
    weights = resample([item.info for item in maps], REPLICATES, seed)
    replicates = [_level_and_share(curves, disease, w)[0] for w in weights]
    found = f"highest expected Dice; estimated disease share {share:.2f}"
    how = f"fitted to the labels of {len(maps)} validation samples ({found})"
    ends = percentile_interval(np.array([1.0 if level is None else level for level in replicates]))
    return Threshold(value, how, *ends, "labels")


def _of_false_alarms(curves: Curves) -> Threshold:
    """The level that a small share of healthy tissue exceeds."""
    # There always is one: nothing exceeds the last level, which is 1.
    value = float(curves.levels[np.argmax(curves.fractions.mean(0) <= FALSE_ALARMS)])
    level = f"the level that {100 * FALSE_ALARMS:.0f} % of healthy validation tissue exceeds"
    return Threshold(value, f"no disease validation sample to fit to: {level}", value, value, "fallback")


def _level_and_share(curves: Curves, disease: NDArray[np.bool_], weights: Floats) -> tuple[float | None, float]:
    """The best level, None where nothing is gained at any, and the estimated share of disease."""
    # Means over samples, not over pixels, so that a large sample counts no more than a small one.
    F, U = (np.average(curves.fractions[of], axis=0, weights=weights[of]) for of in (~disease, disease))
    share = disease_share(U, F)
    gain = expected_dice(U, F, share) - F if share >= NO_SHARE else np.zeros(1)
    return (_best_level(curves.levels, gain) if gain.max() >= NO_SHARE else None), share


def disease_share(U: Floats, F: Floats) -> float:
    """Estimated share pi of disease in the disease samples' tissue, in [0, 1].

    Args:
        U: `(L,)` fraction of disease samples' tissue above each level.
        F: `(L,)` the same of healthy samples. Levels that more than half of the healthy tissue exceeds are ignored: a
            small 1 - F would blow up the noise of U - F.
    """
    trusted = F <= 0.5
    return float(np.clip((U - F)[trusted] / (1 - F[trusted]), 0, 1).max(initial=0))


def expected_dice(U: Floats, F: Floats, share: float) -> Floats:
    """`(L,)` Dice to be expected at each level, `2 (U - (1 - pi) F) / (U + pi)`, in [0, 1]; see `fit_from_labels`."""
    # In few samples noise may take the hit area below 0, or above the marked or the true one.
    hit = np.clip(U - (1 - share) * F, 0, np.minimum(U, share))
    return 2 * hit / (U + share)


def _best_level(levels: Floats, score: Floats) -> float:
    """The middle of the first run of levels with the highest score, so that well separated maps are cut half-way."""
    # Levels that are equal but for rounding belong to the run.
    best = score >= score.max() - 1e-12
    first = int(best.argmax())
    length = int((~best[first:]).argmax()) or len(best) - first
    return float(levels[first] + levels[first + length - 1]) / 2
