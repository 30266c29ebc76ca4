"""Signs that maps follow something other than the disease region: docs/explanation/shortcuts.md.

Statistics by scipy: Kruskal and Wallis, J. Am. Stat. Assoc. 47:583 (1952); Mann and Whitney, Ann. Math. Stat. 18:50
(1947); Spearman, Am. J. Psychol. 15:72 (1904).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kruskal, mannwhitneyu, spearmanr

from compseg.evaluation.curves import SampleMap
from compseg.evaluation.intervals import Floats
from compseg.evaluation.metrics import Labels, auc, average_precision_of_ranked
from compseg.samples import Image, Mask, SampleInfo
from compseg.sums import channel_sums

FEWEST = 3  # healthy patients of a group, to compare it with others
FEWEST_GROUPS = 5  # groups of each class: with fewer, what groups have by chance coincides with the class
FEWEST_TRAINED = 10  # training samples of a group, to score it by its share of disease
FEWEST_SWAPPED = 5  # disease samples of one size, to swap their truths
MOST_SWAPPED = 40  # each is ranked against each: 1600 rankings
DERANGEMENTS = 1000
CUES = ("tissue area", "mean signal on the tissue", "mean signal off the tissue")

T = TypeVar("T")


@dataclass(frozen=True)
class GroupGap:
    """How far the groups of healthy samples are apart in pooled activation x.

    Attributes:
        high: The group with the highest median x.
        low: The group with the lowest.
        medians: Their two medians, high first.
        separation: Median x of disease samples less that of healthy ones, over all groups.
        p: Of the Kruskal-Wallis test that no group differs.
    """

    high: str
    low: str
    medians: tuple[float, float]
    separation: float
    p: float


def group_gap(maps: Sequence[SampleMap]) -> GroupGap | None:
    """Compare healthy samples by group: there is no disease that could make one group more active.

    Samples of a patient count once, with their mean x, because they are not independent.

    Returns:
        None where fewer than two groups have `FEWEST` healthy patients (samples, where no patient is named).
    """
    by_group = {group: x for group, x in _healthy_by_group(maps).items() if len(x) >= FEWEST}
    if len(by_group) < 2:
        return None
    order = sorted(by_group, key=lambda group: float(np.median(by_group[group])))
    low, high = order[0], order[-1]
    medians = float(np.median(by_group[high])), float(np.median(by_group[low]))
    x = [[item.pooled for item in maps if item.info.label == label] for label in (0, 1)]
    separation = float(np.median(x[1]) - np.median(x[0])) if all(x) else 0.0
    # scipy refuses groups without any difference.
    differ = np.ptp(np.concatenate(list(by_group.values()))) > 0
    return GroupGap(high, low, medians, separation, float(kruskal(*by_group.values()).pvalue) if differ else 1.0)


def _healthy_by_group(maps: Sequence[SampleMap]) -> dict[str, Floats]:
    patients: dict[tuple[str, str], list[float]] = {}
    for item in maps:
        if not item.info.label:
            patients.setdefault((item.info.group, item.info.patient or item.info.name), []).append(item.pooled)
    groups: dict[str, list[float]] = {}
    for (group, _), x in patients.items():
        groups.setdefault(group, []).append(float(np.mean(x)))
    return {group: np.array(x) for group, x in groups.items()}


@dataclass(frozen=True)
class Origin:
    """Where the test samples come from, compared with the training samples.

    Attributes:
        named: Whether the cohort names groups.
        new: Number of test samples whose group has no training sample.
        total: Number of test samples.
        inseparable: Whether nothing in the cohort separates the class from the group: every group holds one class, and
            test groups were seen in training or a class has fewer than `FEWEST_GROUPS` groups.
        told: AUC with which the group alone predicts the labels of the training samples, each group scored by its share
            of disease. Groups of fewer than `FEWEST_TRAINED` are ignored, because they predict labels by chance.
    """

    named: bool
    new: int
    total: int
    inseparable: bool
    told: float


def origin_of(infos: Sequence[SampleInfo]) -> Origin:
    """Compare groups and classes of a cohort; reads no pixels."""
    train = [info for info in infos if info.split == "train"]
    test = [info for info in infos if info.split == "test"]
    new = sum(info.group not in {other.group for other in train} for info in test)
    return Origin(
        named=any(info.group for info in infos),
        new=new,
        total=len(test),
        inseparable=_inseparable([info for info in infos if info.split], all_new=new == len(test)),
        told=_told_by_group(train),
    )


def _inseparable(infos: Sequence[SampleInfo], all_new: bool) -> bool:
    pairs = {(info.group, info.label) for info in infos}
    groups = Counter(label for _, label in pairs)  # of each class
    # More pairs than groups: a group holds both classes, so that within it class and group are not one.
    if len(groups) < 2 or len(pairs) > len({group for group, _ in pairs}):
        return False
    return not all_new or min(groups.values()) < FEWEST_GROUPS


def _told_by_group(infos: Sequence[SampleInfo]) -> float:
    size = Counter(info.group for info in infos)
    disease = Counter(info.group for info in infos if info.label)
    large = [info for info in infos if size[info.group] >= FEWEST_TRAINED]
    shares = [disease[info.group] / size[info.group] for info in large]
    return _auc_and_p(np.array(shares), np.array([info.label for info in large]))[0]


@dataclass(frozen=True)
class Cue:
    """A number of a sample that has nothing to do with a region.

    Attributes:
        name: One of `CUES`.
        told: AUC with which it alone predicts the labels of the training samples; below .5 where disease samples have
            less of it.
        p: Of the Mann-Whitney test that it does not.
        followed: Spearman's rank correlation with x over the healthy test samples, where disease cannot be its reason;
            NaN for fewer than three samples or for constant numbers.
        p_followed: Of the test that it is zero.
    """

    name: str
    told: float
    p: float
    followed: float
    p_followed: float


def cue_values(image: Image, tissue: Mask) -> dict[str, float]:
    """`CUES` of one sample: tissue pixels, and means over pixels and channels of the raw `(H, W, C)` image.

    A mean over no pixels is NaN.
    """
    (sums,), channels = channel_sums(image), image.shape[2]
    means = [
        float(sums[kind].mean(dtype=np.float64)) / channels if kind.any() else np.nan for kind in (tissue, ~tissue)
    ]
    return dict(zip(CUES, [float(tissue.sum()), *means], strict=True))


def cues(
    train: Sequence[SampleInfo], test: Sequence[SampleMap], values: Mapping[str, Mapping[str, float]]
) -> list[Cue]:
    """How well each cue predicts the training labels, and whether the maps of healthy test samples follow it.

    Args:
        train: Training samples.
        test: Test samples with their maps.
        values: `cue_values` of all of them, by sample name.
    """
    labels = np.array([info.label for info in train])
    # In disease samples disease itself may be the reason for a higher x.
    healthy = [item for item in test if not item.info.label]
    x = np.array([item.pooled for item in healthy])
    return [
        Cue(
            name,
            *_auc_and_p(np.array([values[info.name][name] for info in train]), labels),
            *_spearman(np.array([values[item.info.name][name] for item in healthy]), x),
        )
        for name in CUES
    ]


def _auc_and_p(scores: Floats, labels: Labels) -> tuple[float, float]:
    area = auc(scores, labels)
    # A cue that some samples lack tells nothing of the cohort.
    if np.isnan(area):
        return 0.5, 1.0
    return area, float(mannwhitneyu(scores[labels == 1], scores[labels == 0]).pvalue)


def _spearman(first: Floats, second: Floats) -> tuple[float, float]:
    # scipy has no answer for numbers without any difference.
    if len(first) < 3 or not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return np.nan, 1.0
    found = spearmanr(first, second)
    return float(found.statistic), float(found.pvalue)


@dataclass(frozen=True)
class Swapped:
    """How well disease samples' maps rank their own truth, and that of one another.

    Attributes:
        samples: Names of the N samples.
        own: `(N,)` average precision within each sample, with its own truth.
        swapped: `(1000,)` mean over the samples, truths swapped at random so that none keeps its own.
    """

    samples: list[str]
    own: Floats
    swapped: Floats


def swapped_truth(maps: Sequence[SampleMap], seed: int = 0) -> Swapped | None:
    """Swap the truths of disease samples of the commonest size; a pair is judged where both have tissue.

    At most 40 samples, in even steps, are taken.

    Args:
        maps: Disease samples whose truth marks tissue.
        seed: Of the derangements, 1000 in number.

    Returns:
        None for fewer than `FEWEST_SWAPPED` samples of one size.
    """
    # A truth can only be laid over maps of its own size.
    sizes = Counter(item.tissue.shape for item in maps).most_common(1)
    alike = thinned([item for item in maps if item.tissue.shape == sizes[0][0]], MOST_SWAPPED)
    if len(alike) < FEWEST_SWAPPED:
        return None
    table = np.array([_precisions(item, alike) for item in alike])
    rows = np.arange(len(alike))
    # Pairs without disease in their common tissue are NaN, and say nothing.
    swapped = [np.nanmean(table[rows, order]) for order in _derangements(len(alike), seed)]
    return Swapped([item.info.name for item in alike], table.diagonal().copy(), np.array(swapped))


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, in even steps from the first."""
    return list(items[:: max(-(-len(items) // most), 1)])


def _precisions(item: SampleMap, others: Sequence[SampleMap]) -> list[float]:
    """Average precision of a map with the truth of each of the others."""
    order = np.argsort(-item.activation, axis=None, kind="stable")
    order = order[item.tissue.ravel()[order]]
    values = item.activation.ravel()[order]
    found = []
    for other in others:
        assert other.truth is not None
        common = other.tissue.ravel()[order]
        found.append(average_precision_of_ranked(values[common], other.truth.ravel()[order][common]))
    return found


def _derangements(count: int, seed: int) -> list[NDArray[np.int64]]:
    generator, places = np.random.default_rng(seed), np.arange(count)
    found: list[NDArray[np.int64]] = []
    while len(found) < DERANGEMENTS:
        # Trying until it fits takes three permutations on average: one in e leaves nothing in its place.
        order = generator.permutation(count)
        if (order != places).all():
            found.append(order)
    return found


@dataclass(frozen=True)
class Shortcuts:
    """What the report looks at besides metrics.

    Attributes:
        origin: Of the test samples; None where the judged cohort is not the one that was trained on.
        cues: Of the same cohort; also empty then.
        groups: None where healthy samples are of one group, or too few.
    """

    origin: Origin | None
    cues: list[Cue]
    groups: GroupGap | None
