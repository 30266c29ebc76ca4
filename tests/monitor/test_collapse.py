"""Each symptom on an epoch made to have it, none on sound ones; the detector's patience, restarts and memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from made_epochs import SIDE, disc, epoch_of, infos_of, spots
from scipy.stats import f as f_distribution

from compseg.monitor import CollapseDetector, Diagnostics, read_findings
from compseg.monitor.collapse import (
    BACKGROUND,
    EMPTY,
    FEW_SAMPLES,
    FEW_STEPS,
    FLAT,
    FULL,
    NOT_FINITE,
    PATIENCE,
    SHORTCUT,
    between_samples,
    fix_for,
    group_effect,
    symptom_of,
    symptom_of_few,
)
from compseg.monitor.diagnostics import Pooled
from compseg.training.attempts import clear_for_restart, seed_after, seed_of_init

LABELS = [1, 0] * 7
GROUPS = ["A", "A", "B", "B"] * 3 + ["A", "B"]


def level(*values):
    """Maps of one value each."""
    return np.repeat(np.array(values, dtype=float), SIDE * SIDE).reshape(-1, SIDE, SIDE)


def per_class(disease, healthy):
    return level(*(disease if label else healthy for label in LABELS))


def empty():
    return epoch_of(level(*[1e-6] * 14), LABELS)


def sound(seed=0):
    return epoch_of(spots(np.random.default_rng(seed), LABELS), LABELS, GROUPS)


def on_background():
    """Disease samples glow off the tissue, and on it classes are alike."""
    maps = spots(np.random.default_rng(0), [0] * 14)
    maps[:, ~disc()] = np.where(LABELS, 0.8, 0.1)[:, None]
    maps[np.array(LABELS) == 1, 2:6, 2:-2] += 0.1
    return epoch_of(maps, LABELS)


def by_array():
    """x follows the array, hardly the class."""
    rng = np.random.default_rng(0)
    maps = spots(rng, LABELS, inside=0.2)
    maps += np.where(np.array(GROUPS) == "A", 0.5, 0)[:, None, None] * disc() * rng.uniform(0.5, 1, (14, SIDE, SIDE))
    return epoch_of(np.clip(maps, 0, 1), LABELS, GROUPS)


def memorised():
    x = np.where(np.arange(20) < 10, 0.3, 0.1)
    noise = np.random.default_rng(1).uniform(0, 0.6, (14, SIDE, SIDE))
    return epoch_of(noise, LABELS, train_x=x, train_labels=[1] * 10 + [0] * 10)


def not_finite():
    maps = spots(np.random.default_rng(0), LABELS)
    maps[3] = np.nan
    return epoch_of(maps, LABELS)


@pytest.mark.parametrize(
    ("epoch", "kind"),
    [
        (empty(), EMPTY),
        (epoch_of(level(*[0.9999] * 14), LABELS), FULL),
        (epoch_of(level(*[0.3] * 14), LABELS), FLAT),
        (epoch_of(per_class(0.9, 0.1), LABELS), SHORTCUT),
        (on_background(), BACKGROUND),
        (by_array(), SHORTCUT),
        (memorised(), SHORTCUT),
        (not_finite(), NOT_FINITE),
    ],
    ids=["empty", "full", "flat", "whole samples", "background", "arrays", "memorised", "not finite"],
)
def test_each_symptom_has_its_name(epoch, kind):
    assert symptom_of(epoch).kind == kind


@pytest.mark.parametrize("seed", range(5))
def test_sound_maps_have_none(seed):
    assert symptom_of(sound(seed)) is None


def test_faint_maps_that_part_the_classes_are_sound():
    """Where a loss asks for little, maps are faint: that is no collapse."""
    rng = np.random.default_rng(0)
    assert symptom_of(epoch_of(spots(rng, LABELS, inside=0.08, rest=0.0), LABELS)) is None


def test_activation_off_the_tissue_is_no_problem_by_itself():
    rng = np.random.default_rng(0)
    assert symptom_of(epoch_of(spots(rng, LABELS, inside=0.4, outside=0.6), LABELS)) is None


def learned_from(number, separated):
    """Validation samples that look alike, after training on so many samples of each class."""
    x = np.linspace(0, 0.1, 2 * number) + np.where(np.arange(2 * number) < number, separated, 0)
    noise = np.random.default_rng(1).uniform(0, 0.6, (14, SIDE, SIDE))
    return epoch_of(noise, LABELS, train_x=x, train_labels=[1] * number + [0] * number)


@pytest.mark.parametrize(
    ("epoch", "kind", "words"),
    [
        (learned_from(5, 0.3), FEW_SAMPLES, "5 healthy and 5 disease samples, it tells these apart and not others"),
        (learned_from(5, 0.0), FEW_STEPS, "in 15 steps, it tells neither these nor others apart well"),
        (learned_from(10, 0.3), None, ""),  # enough of them: whatever is wrong has another name
        (sound(), None, ""),  # few, and they were enough
        (epoch_of(level(*[0.3] * 14), [1] * 14, train_x=[0.3, 0.1], train_labels=[1, 0]), None, ""),  # AUC unknown
    ],
)
def test_what_few_samples_lead_to_is_named(epoch, kind, words):
    found = symptom_of_few(epoch, epoch.train.infos, steps=15)
    assert (found and found.kind) == kind
    assert words in (found.words if found else "")


def test_words_say_where_x_lies():
    assert symptom_of(empty()).words == "every map is empty (x .0000 in both classes)"


def test_between_samples_is_the_law_of_total_variance():
    maps = np.random.default_rng(0).uniform(0, 1, (14, SIDE, SIDE)) ** np.linspace(0.5, 3, 14)[:, None, None]
    values = maps[:, disc()]
    expected = values.mean(1).var() / values.var()
    assert between_samples(epoch_of(maps, LABELS)) == pytest.approx(expected, rel=1e-4)
    assert between_samples(epoch_of(per_class(0.9, 0.1), LABELS)) == pytest.approx(1)


def test_group_effect_of_a_balanced_design_is_the_textbooks():
    """With as many samples in each cell, sums of squares are those of the plain means."""
    rng = np.random.default_rng(3)
    labels, groups = np.repeat([0, 1], 12), np.tile(np.repeat(["A", "B", "C"], 4), 2)
    x = rng.normal(size=24) + 0.5 * labels + (groups == "B")
    effect = group_effect(Pooled(infos_of(labels, groups.tolist()), x))
    by_group = 8 * sum((x[groups == g].mean() - x.mean()) ** 2 for g in "ABC")
    by_class = 12 * sum((x[labels == c].mean() - x.mean()) ** 2 for c in (0, 1))
    left = ((x - x.mean()) ** 2).sum() - by_group - by_class
    assert effect.groups == pytest.approx(by_group)
    assert effect.classes == pytest.approx(by_class)
    assert effect.p == pytest.approx(f_distribution.sf(by_group / 2 / (left / 20), 2, 20))


@pytest.mark.parametrize(
    "groups", [["A"] * 14, ["A" if label else "B" for label in LABELS], [f"p{i}" for i in range(14)]]
)
def test_groups_that_cannot_be_told_from_classes_say_nothing(groups):
    assert group_effect(Pooled(infos_of(LABELS, groups), np.arange(14.0))) is None


@pytest.mark.parametrize(
    ("kind", "config", "fix"),
    [
        (EMPTY, {"model": {"norm": "none"}, "method": {"name": "paper2020"}}, "model.norm=group, or method=compseg"),
        (
            EMPTY,
            {"model": {"norm": "group"}, "method": {"name": "compseg"}, "optimizer": {"lr": 0.002}},
            "optimizer.lr=0.0002",
        ),
        (SHORTCUT, {"model": {"depth": 4}, "method": {"name": "lse"}}, "model=unet_shallow, or method=compseg"),
        (SHORTCUT, {"model": {"depth": 1}, "method": {"name": "compseg"}}, "augmentation=flip_rotate90_jitter"),
        (
            SHORTCUT,
            {"model": {"depth": 3}, "channels": 3, "method": {"name": "compseg"}},
            "augmentation=flip_rotate90_jitter",
        ),
    ],
)
def test_a_fix_is_what_the_run_does_not_have_yet(kind, config, fix):
    assert fix_for(kind, config) == fix


class Watched:
    """A detector, and just as much of a trainer and a net as it looks at."""

    def __init__(self, run, restarts=0):
        self.source, self.detector = Diagnostics(), CollapseDetector(restarts)
        self.trainer = SimpleNamespace(
            callbacks=[self.source, self.detector],
            should_stop=False,
            is_global_zero=True,
            default_root_dir=str(run),
            global_step=15,
            datamodule=SimpleNamespace(train=SimpleNamespace(infos=infos_of([1] * 5 + [0] * 6))),
        )
        self.logged = []
        self.net = SimpleNamespace(
            seed=7,
            config={"method": {"name": "max"}},
            log_dict=lambda values, **_: self.logged.append(values["collapse/named"]),
        )

    def see(self, *epochs, start=0):
        for number, self.source.latest in enumerate(epochs, start):
            self.trainer.current_epoch = number
            self.detector.on_validation_epoch_end(self.trainer, self.net)
        return self


def test_a_collapse_is_named_once_it_lasts_and_once_only(tmp_path, caplog):
    with caplog.at_level("INFO", "compseg"):
        watched = Watched(tmp_path).see(sound(), empty(), empty(), empty())
    assert watched.logged == [0, 0, 1, 1]
    assert caplog.messages == [
        "collapse: every map is empty (x .0000 in both classes), since epoch 1; "
        "likely fix: method=compseg, or optimizer.lr=0.0001"
    ]
    (finding,) = read_findings(tmp_path)
    assert (finding.kind, finding.since, finding.epoch, finding.seed, finding.restarted) == (EMPTY, 1, 2, 7, False)
    assert not watched.trainer.should_stop


def test_few_samples_are_named_when_training_ends(tmp_path, caplog):
    watched = Watched(tmp_path, restarts=1)
    with caplog.at_level("INFO", "compseg"):
        watched.see(learned_from(5, 0.0), learned_from(5, 0.3))
        assert caplog.messages == []
        watched.detector.on_train_end(watched.trainer, watched.net)
    (line,) = caplog.messages
    assert line.startswith("suspicious: learned from 6 healthy and 5 disease samples, it tells these apart and not")
    assert line.endswith("; likely fix: at least 10 training samples of each class")
    assert [finding.kind for finding in read_findings(tmp_path)] == [FEW_SAMPLES]
    assert not watched.trainer.should_stop


def test_a_symptom_that_passes_is_not_named(tmp_path):
    assert not any(Watched(tmp_path).see(*[empty(), sound()] * 4).logged)
    assert not any(Watched(tmp_path).see(*[by_array()] * (PATIENCE[SHORTCUT] - 1), sound()).logged)
    assert read_findings(tmp_path) == []


def test_lost_maps_restart_as_often_as_allowed(tmp_path):
    watched = Watched(tmp_path, restarts=1).see(empty(), empty())
    assert watched.detector.restarting
    assert watched.trainer.should_stop
    assert read_findings(tmp_path) == []  # written when the attempt has been cleared away, not before
    again = Watched(tmp_path, restarts=1)
    again.detector.findings, again.net.seed = watched.detector.findings, 8
    again.see(empty(), empty())
    assert not again.detector.restarting
    assert [finding.restarted for finding in read_findings(tmp_path)] == [True, False]


def test_a_suspicion_restarts_nothing(tmp_path):
    watched = Watched(tmp_path, restarts=3).see(*[by_array()] * PATIENCE[SHORTCUT])
    assert [finding.kind for finding in watched.detector.findings] == [SHORTCUT]
    assert not watched.trainer.should_stop


def test_the_detector_continues_where_it_was(tmp_path):
    broken = Watched(tmp_path).see(empty())
    resumed = Watched(tmp_path)
    resumed.detector.load_state_dict(broken.detector.state_dict())
    assert resumed.see(empty(), start=1).logged == [1]


def test_a_run_stopped_on_its_way_to_a_restart_does_not_train_on(tmp_path):
    watched = Watched(tmp_path, restarts=1).see(empty(), empty())
    resumed = Watched(tmp_path, restarts=1)
    resumed.detector.load_state_dict(watched.detector.state_dict())
    resumed.detector.on_train_start(resumed.trainer, resumed.net)
    assert resumed.trainer.should_stop


def test_clearing_for_a_restart_keeps_the_history_and_leaves_no_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "history.csv"):
        (tmp_path / name).write_text("epoch\n0\n")
    findings = Watched(tmp_path, restarts=1).see(empty(), empty()).detector.findings
    clear_for_restart(tmp_path, findings)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert (tmp_path / "history_before_restart_1.csv").read_text() == "epoch\n0\n"
    assert read_findings(tmp_path) == findings


def test_seeds_of_restarts_and_of_inits_differ_from_each_other_and_from_those_given_by_hand(tmp_path):
    findings = Watched(tmp_path, restarts=1).see(empty(), empty()).detector.findings
    kinds = [lambda seed, restarts: seed_after(seed, findings * restarts), seed_of_init]
    again = {kind(seed, count) for kind in kinds for seed in range(50) for count in range(1, 4)}
    assert len(again | set(range(50))) == 2 * 150 + 50
    assert [kind(seed, 0) for kind in kinds for seed in range(50)] == [*range(50), *range(50)]
