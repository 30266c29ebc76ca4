"""Names within the first epochs what is wrong with the maps, without truth, and how to fix it; restarts if told to.

docs/explanation/collapse.md has the runs behind it, and behind the constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from scipy.stats import f as f_distribution

from compseg.errors import reading
from compseg.files import checked_json, read_json
from compseg.log import log
from compseg.monitor.diagnostics import Diagnosis, Floats, Network, Pooled, data_of, diagnosis_of
from compseg.samples import SampleInfo

FILE = "collapse.json"

NOT_FINITE, EMPTY, FULL = "not finite", "empty", "full"
FLAT, BACKGROUND, SHORTCUT = "flat", "background", "shortcut"
FEW_SAMPLES, FEW_STEPS = "few samples", "few steps"

# A symptom is named after so many epochs in a row. Batch statistics may empty or fill the maps of a single validation,
# a network that has hardly started is flat for a while, and paper2020 on the phantom, which ends well, answered to the
# array for three epochs.
PATIENCE = {NOT_FINITE: 1, EMPTY: 2, FULL: 2, FLAT: 5, BACKGROUND: 3, SHORTCUT: 4}
# No run has come back from these; the others are suspicions.
LOST = (NOT_FINITE, EMPTY, FULL)

# Set on the runs in docs/explanation/collapse.md, where they separate good from bad; how often they err elsewhere is
# not known.
BLANK = 0.9999  # share of both classes' tissue with an activation below .01
FILLED = 0.95  # mean activation on healthy tissue
SAME = 0.01  # separation of the classes' x below which they do not differ
SMOOTH = 0.02  # standard deviation of the activation over a sample below which its map shows nothing
OFF_TISSUE = 0.1  # separation of the classes' activation off the tissue
WHOLE = 0.8  # share of the activation's variance that lies between samples; the rest is within them
SEPARATED, NOT_SEPARATED = 0.9, 0.6  # AUC over validation samples
MEMORISED = 0.95  # AUC over training samples
SURE = 0.001  # p of the F test that groups differ
ENOUGH = 10  # training samples of each class from which on labels did as well as an expert's masks (docs/results.md)
OWN = 0.2  # training AUC above the validation AUC from which what was learned is the training samples' own
FEW = 16  # channels below which model=unet_shallow may have three levels: `compseg.training.resolve`


@dataclass(frozen=True)
class Symptom:
    """What is wrong with an epoch's maps.

    Attributes:
        kind: One of the words above.
        words: The same with its numbers.
    """

    kind: str
    words: str


def symptom_of(d: Diagnosis) -> Symptom | None:
    """The gravest symptom of an epoch, None of a sound one."""
    # `_lost` comes first: comparisons with numbers that are not finite say nothing.
    for find in (_lost, _flat, _background, _whole_samples, _memorised, _groups):
        if found := find(d):
            return found
    return None


def _lost(d: Diagnosis) -> Symptom | None:
    if not (np.isfinite(d.inside).all() and np.isfinite(d.val.x).all()):
        return Symptom(NOT_FINITE, "activations are not finite")
    if d.shares[:, 0].min() > BLANK:
        return Symptom(EMPTY, f"every map is empty ({_x(d)})")
    return Symptom(FULL, f"every map is full ({_x(d)})") if d.of(d.inside, 0) > FILLED else None


def _flat(d: Diagnosis) -> Symptom | None:
    if abs(d.val.separation) > SAME or d.of(d.spread, 1) > SMOOTH:
        return None
    return Symptom(FLAT, f"every map is flat and the classes are alike ({_x(d)})")


def _background(d: Diagnosis) -> Symptom | None:
    """Activation off the tissue never counts, so a high one is no problem; separating the classes there is."""
    # In the default method's runs it is .46 there, and .29 on the tissue of disease samples.
    inside, outside = d.of(d.inside, 1), d.of(d.outside, 1)
    on, off = inside - d.of(d.inside, 0), outside - d.of(d.outside, 0)
    if not (outside > inside and off > max(on, OFF_TISSUE)):
        return None
    return Symptom(
        BACKGROUND, f"classes differ more off the tissue ({off:.2f}) than on it ({on:.2f}), where activation is lower"
    )


def _whole_samples(d: Diagnosis) -> Symptom | None:
    share = between_samples(d)
    # `not ... >`, because the AUC is NaN where validation has one class.
    if share < WHOLE or not d.val.auc > SEPARATED or d.val.separation < SAME:
        return None
    return Symptom(
        SHORTCUT,
        f"maps are all or nothing: {share:.0%} of the variance lies between samples, as if they were recognised whole",
    )


def _memorised(d: Diagnosis) -> Symptom | None:
    if not (d.train.auc > MEMORISED and d.val.auc < NOT_SEPARATED):
        return None
    aucs = f"AUC {d.train.auc:.2f} and {d.val.auc:.2f}"
    return Symptom(SHORTCUT, f"training samples are told apart by x and validation samples are not ({aucs})")


def _groups(d: Diagnosis) -> Symptom | None:
    effect = group_effect(d.val)
    if effect is None or effect.p > SURE or effect.groups <= effect.classes:
        return None
    return Symptom(SHORTCUT, f"x differs more between groups than between the classes within them (p {effect.p:.1g})")


def symptom_of_few(d: Diagnosis, train: Sequence[SampleInfo], steps: int) -> Symptom | None:
    """What few training samples have led to, at the end of training; None if they were enough.

    Args:
        d: Of the last epoch, which need not have seen all of them.
        train: The samples of the training split.
        steps: That were taken.
    """
    healthy, disease = np.bincount([info.label for info in train], minlength=2)
    # `not ... <`, because the AUC is NaN where validation has one class.
    if min(healthy, disease) >= ENOUGH or not d.val.auc < SEPARATED:
        return None
    start = f"learned from {healthy} healthy and {disease} disease samples"
    aucs = f"AUC by x {d.train.auc:.2f}, of validation samples {d.val.auc:.2f}"
    if d.train.auc - d.val.auc > OWN:
        return Symptom(FEW_SAMPLES, f"{start}, it tells these apart and not others ({aucs})")
    return Symptom(FEW_STEPS, f"{start} in {steps} steps, it tells neither these nor others apart well ({aucs})")


def _x(d: Diagnosis) -> str:
    means = [f"{d.val.mean(label):.4f}".replace("0.", ".", 1) for label in (0, 1)]
    return f"x {means[0]} in both classes" if means[0] == means[1] else f"x {means[0]} healthy, {means[1]} disease"


def between_samples(d: Diagnosis) -> float:
    """Share of the activation's variance over the validation tissue that lies between samples, in [0, 1].

    By the law of total variance, with samples weighted alike; 1 for maps of one value each.
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
    both, of_label, of_group = _residual(x, group, label), _residual(x, label), _residual(x, group)
    groups, noise = of_label - both, both / (len(x) - parameters)
    # Where x has one value in each group and class, no noise is left to divide by.
    ratio = groups / (len(mixed) - 1) / max(noise, np.finfo(np.float64).tiny)
    p = float(f_distribution.sf(ratio, len(mixed) - 1, len(x) - parameters))
    return GroupEffect(groups, of_group - both, p)


def _residual(x: Floats, *factors: NDArray[Any]) -> float:
    """Sum of squares that an additive model of the factors leaves."""
    # With all values of two factors the columns are linearly dependent, which `lstsq` takes and a solver would not.
    columns = [(factor == value).astype(float) for factor in factors for value in np.unique(factor)]
    design = np.stack(columns, axis=1)
    return float(((x - design @ np.linalg.lstsq(design, x, rcond=None)[0]) ** 2).sum())


def fix_for(kind: str, config: Mapping[str, Any]) -> str:
    """What is likely to help, as one would type it; without what the run has already.

    Args:
        kind: Of the symptom.
        config: The run's resolved configuration.
    """
    model, method = dict(config.get("model") or {}), (config.get("method") or {}).get("name")
    slower = f"optimizer.lr={(config.get('optimizer') or {}).get('lr', 1e-3) / 10:g}"
    norm = ["model.norm=group"] if model.get("norm") == "none" else []
    pseudo_labels = [] if method == "compseg" else ["method=compseg"]
    few_channels = config.get("channels", FEW) < FEW
    shallow = [] if model.get("depth") in ((1, 3) if few_channels else (1,)) else ["model=unet_shallow"]
    fixes = {
        NOT_FINITE: [slower, "trainer.gradient_clip_val=1", "trainer.precision=32-true"],
        EMPTY: [*norm, *pseudo_labels, slower],
        FULL: [*norm, *pseudo_labels, slower],
        FLAT: [*norm, *pseudo_labels, "more epochs"],
        BACKGROUND: ["a tissue mask that fits", *shallow],
        SHORTCUT: [*shallow, *pseudo_labels, "augmentation=flip_rotate90_jitter"],
        FEW_SAMPLES: [f"at least {ENOUGH} training samples of each class"],
        FEW_STEPS: ["more epochs", f"at least {ENOUGH} training samples of each class"],
    }
    return ", or ".join(fixes[kind][:2])


@dataclass(frozen=True)
class Finding:
    """A collapse, or the suspicion of one, that a run has named.

    Attributes:
        seed: Of the training.
        epoch: In which it was named.
        since: The first epoch of the row in which it was seen.
        kind: Of the symptom.
        words: The same with its numbers.
        fix: What is likely to help.
        restarted: Whether the run started again from another seed.
    """

    seed: int
    epoch: int
    since: int
    kind: str
    words: str
    fix: str
    restarted: bool


def write_findings(run: Path, findings: Sequence[Finding]) -> None:
    """Write down what a run has named so far."""
    checked_json(run / FILE, [asdict(finding) for finding in findings])


def read_findings(run: Path) -> list[Finding]:
    """What a run has named so far."""
    file = run / FILE
    if not file.is_file():
        return []
    fix = "delete it; a run that had started again from another seed is then trained again from its first seed"
    with reading(file, fix):
        return [Finding(**plain) for plain in read_json(file, list, fix)]


class CollapseDetector(Callback):
    """Warns of a symptom that lasts, once for each kind, and writes it to `collapse.json`.

    Args:
        restarts: How often the run may start again from another seed when its maps are lost: empty, full or not finite.
            A suspicion never restarts a run.

    Attributes:
        findings: What has been named, also in trainings from earlier seeds that were given up.
        restarting: Whether training ended in order to start again.
    """

    def __init__(self, restarts: int = 0) -> None:
        self.restarts = restarts
        self.findings: list[Finding] = []
        self.restarting = False
        self._kind, self._since = "", 0
        self._few: Symptom | None = None

    @property
    def restarted(self) -> int:
        """How often the run has started again."""
        return sum(finding.restarted for finding in self.findings)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the epoch; all ranks see the same numbers and decide alike."""
        d, net, epoch = diagnosis_of(trainer), cast("Network", pl_module), trainer.current_epoch
        found, self._few = symptom_of(d), symptom_of_few(d, data_of(trainer).train.infos, trainer.global_step)
        if found is None:
            self._kind = ""
        elif found.kind != self._kind:
            self._kind, self._since = found.kind, epoch
        lasting = found is not None and epoch - self._since + 1 >= PATIENCE[found.kind]
        values = {"collapse/named": float(lasting), "collapse/restarts": float(self.restarted)}
        pl_module.log_dict(values, rank_zero_only=False)
        # By seed too: after a restart the next attempt is judged by itself.
        if found is not None and lasting and (found.kind, net.seed) not in {(f.kind, f.seed) for f in self.findings}:
            self._name(found, trainer, net)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name what few samples have led to."""
        if self._few is not None and not self.restarting:
            self._since = trainer.current_epoch
            self._name(self._few, trainer, cast("Network", pl_module))

    def state_dict(self) -> dict[str, Any]:
        """How long the present symptom has lasted, and what was named."""
        return {
            "kind": self._kind,
            "since": self._since,
            "restarting": self.restarting,
            "findings": [asdict(f) for f in self.findings],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self._kind, self._since = state_dict["kind"], state_dict["since"]
        self.findings = [Finding(**plain) for plain in state_dict["findings"]]
        self.restarting = state_dict["restarting"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not train on after a stop that came between the decision to start again and the start."""
        del pl_module
        trainer.should_stop |= self.restarting

    def _name(self, found: Symptom, trainer: pl.Trainer, net: Network) -> None:
        self.restarting = found.kind in LOST and self.restarted < self.restarts
        fix, epoch = fix_for(found.kind, net.config), trainer.current_epoch
        self.findings.append(Finding(net.seed, epoch, self._since, found.kind, found.words, fix, self.restarting))
        # Or, not set: another callback may have asked for the end.
        trainer.should_stop |= self.restarting
        word = "collapse" if found.kind in LOST else "suspicious"
        since = "" if found is self._few else f", since epoch {self._since}"
        log(f"{word}: {found.words}{since}; likely fix: {fix}")
        # Findings before a restart are written when its training has been cleared away, not before.
        if trainer.is_global_zero and not self.restarting:
            write_findings(Path(trainer.default_root_dir), self.findings)
