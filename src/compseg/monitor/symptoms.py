"""Names what may be wrong with an epoch's maps, without truth: docs/explanation/collapse.md has the runs behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from compseg.monitor.diagnosis import Diagnosis, Floats, Pooled

NOT_FINITE, EMPTY, FULL = "not finite", "empty", "full"
FLAT, BACKGROUND, SHORTCUT = "flat", "background", "shortcut"

# After so many epochs in a row a symptom is named. Batch statistics may empty or fill the maps of a single validation;
# a network that has hardly started is flat for a while.
PATIENCE = {NOT_FINITE: 1, EMPTY: 2, FULL: 2, FLAT: 5, BACKGROUND: 3, SHORTCUT: 4}
# Nothing comes back from these; the others are suspicions.
LOST = (NOT_FINITE, EMPTY, FULL)

BLANK = 0.9999  # share of both classes' tissue with an activation below .01
FILLED = 0.95  # mean activation on healthy tissue
SAME = 0.01  # separation of the classes' x, below which they do not differ
SMOOTH = 0.02  # standard deviation of the activation over a sample, below which its map shows nothing
TOLD_APART = 0.9  # AUC over samples
OFF_TISSUE = 0.1  # separation of the classes' activation off the tissue
WHOLE = 0.8  # share of the activation's variance that lies between samples; inside them there is the rest
NOT_TOLD_APART = 0.6
SURE = 0.001  # p of the F test that groups differ


@dataclass(frozen=True)
class Symptom:
    """What is wrong with an epoch's maps.

    Attributes:
        kind: One of the six words above.
        words: The same with its figures.
    """

    kind: str
    words: str


def symptom_of(d: Diagnosis) -> Symptom | None:
    """The gravest symptom of an epoch, None of a sound one."""
    for look in (_not_finite, _empty, _full, _flat, _background, _whole_samples, _memorised, _groups):
        if found := look(d):
            return found
    return None


def _not_finite(d: Diagnosis) -> Symptom | None:
    if np.isfinite(d.inside).all() and np.isfinite(d.val.x).all():
        return None
    return Symptom(NOT_FINITE, "activations are not finite")


def _empty(d: Diagnosis) -> Symptom | None:
    return Symptom(EMPTY, f"every map is empty ({_x(d)})") if d.shares[:, 0].min() > BLANK else None


def _full(d: Diagnosis) -> Symptom | None:
    return Symptom(FULL, f"every map is full ({_x(d)})") if d.of(d.inside, 0) > FILLED else None


def _flat(d: Diagnosis) -> Symptom | None:
    if abs(d.val.separation) > SAME or d.of(d.spread, 1) > SMOOTH:
        return None
    return Symptom(FLAT, f"every map is flat and the classes are alike ({_x(d)})")


def _background(d: Diagnosis) -> Symptom | None:
    """Activation off the tissue never counts, so a high one is no fault; telling the classes apart there is."""
    inside, outside = d.of(d.inside, 1), d.of(d.outside, 1)
    on, off = inside - d.of(d.inside, 0), outside - d.of(d.outside, 0)
    if not (outside > inside and off > max(on, OFF_TISSUE)):
        return None
    return Symptom(
        BACKGROUND, f"classes differ more off the tissue ({off:.2f}) than on it ({on:.2f}), where activation is lower"
    )


def _whole_samples(d: Diagnosis) -> Symptom | None:
    share = between_samples(d)
    if share < WHOLE or not d.val.auc > TOLD_APART or d.val.separation < SAME:
        return None
    return Symptom(
        SHORTCUT,
        f"maps are all or nothing: {share:.0%} of the variance lies between samples, as if they were recognised whole",
    )


def _memorised(d: Diagnosis) -> Symptom | None:
    if not (d.train.auc > 0.95 and d.val.auc < NOT_TOLD_APART):
        return None
    aucs = f"AUC {d.train.auc:.2f} and {d.val.auc:.2f}"
    return Symptom(SHORTCUT, f"training samples are told apart by x and validation samples are not ({aucs})")


def _groups(d: Diagnosis) -> Symptom | None:
    effect = group_effect(d.val)
    if effect is None or effect.p > SURE or effect.groups <= effect.classes:
        return None
    return Symptom(SHORTCUT, f"x differs more between groups than between the classes within them (p {effect.p:.1g})")


def _x(d: Diagnosis) -> str:
    means = [f"{d.val.mean(label):.4f}".replace("0.", ".", 1) for label in (0, 1)]
    return f"x {means[0]} in both classes" if means[0] == means[1] else f"x {means[0]} healthy, {means[1]} disease"


def between_samples(d: Diagnosis) -> float:
    """Share of the activation's variance over the validation tissue that lies between samples, in [0, 1].

    By the law of total variance, with samples weighted alike; 1 for maps that are one value each.
    """
    between, within = float(d.inside.var()), float((d.spread**2).mean())
    return between / (between + within) if between + within > 0 else 0.0


@dataclass(frozen=True)
class GroupEffect:
    """How much of the variance of x groups and classes explain beyond each other.

    Attributes:
        groups: Sum of squares of the group, given the class.
        classes: Sum of squares of the class, given the group.
        p: Of the F test that groups do not differ, given the class.
    """

    groups: float
    classes: float
    p: float


def group_effect(pooled: Pooled) -> GroupEffect | None:
    """Two-way analysis of variance of x (type II sums of squares), over the groups that hold both classes.

    None where fewer than two groups do: class and group cannot be told apart there.
    """
    group, label, x = np.array([info.group for info in pooled.infos]), pooled.labels, pooled.x
    mixed = [name for name in np.unique(group) if len(np.unique(label[group == name])) == 2]
    kept = np.isin(group, mixed)
    group, label, x = group[kept], label[kept], x[kept]
    parameters = len(mixed) + 1
    if len(mixed) < 2 or len(x) <= parameters:
        return None
    both, of_label, of_group = _left(x, group, label), _left(x, label), _left(x, group)
    groups, noise = of_label - both, both / (len(x) - parameters)
    ratio = groups / (len(mixed) - 1) / max(noise, np.finfo(np.float64).tiny)
    p = float(f_distribution.sf(ratio, len(mixed) - 1, len(x) - parameters))
    return GroupEffect(groups, of_group - both, p)


def _left(x: Floats, *factors: NDArray[Any]) -> float:
    """Sum of squares that an additive model of the factors leaves."""
    columns = [(factor == value).astype(float) for factor in factors for value in np.unique(factor)]
    design = np.stack(columns, axis=1)
    return float(((x - design @ np.linalg.lstsq(design, x, rcond=None)[0]) ** 2).sum())


def mend_of(kind: str, config: Mapping[str, Any]) -> str:
    """What is likely to help, as what one would type; what the run has already is left out.

    Args:
        kind: Of the symptom.
        config: The run's resolved configuration.
    """
    model, method = dict(config.get("model") or {}), config.get("method")
    slower = f"optimizer.lr={(config.get('optimizer') or {}).get('lr', 1e-3) / 10:g}"
    norm = ["model.norm=group"] if model.get("norm") == "none" else []
    trains_on_pseudo_labels = [] if method == "compseg" else ["method=compseg"]
    shallow = [] if model.get("depth") == config.get("depth", 1) else ["model=unet_shallow"]
    mends = {
        NOT_FINITE: [slower, "trainer.gradient_clip_val=1", "trainer.precision=32-true"],
        EMPTY: [*norm, *trains_on_pseudo_labels, slower],
        FULL: [*norm, *trains_on_pseudo_labels, slower],
        FLAT: [*norm, *trains_on_pseudo_labels, "more epochs"],
        BACKGROUND: ["a tissue mask that fits", *shallow],
        SHORTCUT: [*shallow, *trains_on_pseudo_labels, "augmentation=flip_rotate90_jitter"],
    }
    return ", or ".join(mends[kind][:2])
