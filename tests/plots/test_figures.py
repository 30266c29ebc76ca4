"""Figures of plain arrays: what is drawn, named and marked."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from compseg.plots import figures
from compseg.plots.style import file_of, pixels
from compseg.samples import Channels

HISTORY = {
    "epoch": [0, 1, 2],
    "train/loss": [0.3, 0.2, 0.1],
    "val/loss": [0.3, 0.15, 0.2],
    "train/x_disease": [0.1, 0.2, 0.3],
    "train/x_healthy": [0.1, 0.05, 0.02],
    "val/x_disease": [np.nan, 0.2, 0.3],
}
INFRARED = Channels(5, (1800.0, 1600.0, 1400.0, 1200.0, 1000.0), "cm-1")
THRESHOLD = (0.4, 0.3, 0.5)


def spectra(channels, n=150):
    rng = np.random.default_rng(0)
    return figures.Spectra(rng.normal(1, 0.1, (n, channels.count)), rng.normal(0, 0.1, (40, channels.count)), channels)


def drawn():
    levels, counts = np.linspace(0, 1, 11), np.arange(10)
    fractions = {"disease": 1 - levels, "healthy": (1 - levels) ** 2}
    return {
        "roc": figures.roc({"AUC 0.5": (np.array([0.0, 1.0]), np.array([0.0, 1.0]))}, "samples"),
        "threshold": figures.threshold_curves(fractions, levels, (levels, np.array([1 - levels])), THRESHOLD, 1.0),
        "histogram": figures.histogram([figures.Counts("healthy", counts, "b")], "activations", 0.5, THRESHOLD),
        "groups": figures.activation_by_group(["A", "B"], [0, 1], [0.1, 0.4]),
        "learning": figures.learning_curves(HISTORY),
    }


@pytest.mark.parametrize("name", list(drawn()))
def test_every_plot_labels_its_axes_and_can_be_drawn(name):
    figure = drawn()[name]
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    assert np.unique(pixels(figure)).size > 10
    assert file_of(figure, dpi=40)[:4] == b"\x89PNG"
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_svg_files_of_a_figure_are_text_without_a_date():
    content = file_of(drawn()["roc"], "svg")
    assert content.startswith(b"<?xml")
    assert b"dc:date" not in content


def test_roc_curves_are_named_and_the_last_stands_out():
    corner = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])
    chance, first, last = figures.roc({"training": corner, "validation": corner}, "epoch 1").axes[0].lines
    assert [line.get_label() for line in (chance, first, last)] == ["chance", "training", "validation"]
    assert last.get_color() == figures.INK != first.get_color()
    assert len(figures.roc({}, "one class").axes[0].lines) == 1


def test_histogram_shares_add_up_to_one():
    groups = [
        figures.Counts("healthy", np.array([3, 1]), "b"),
        figures.Counts("nobody", np.array([0, 0]), "g"),
        figures.Counts("disease", np.array([0.0, 7.0]), "r", ":"),
    ]
    axes = figures.histogram(groups, "activations", 0.5, THRESHOLD).axes[0]
    assert len(axes.patches) == 2 + 1  # the threshold's band is the last
    for stairs in axes.patches[:2]:
        assert stairs.get_data().values.sum() == pytest.approx(1)
        assert stairs.get_data().edges.tolist() == [0, 0.25, 0.5]
    assert len(figures.histogram(groups, "activations").axes[0].patches) == 2


def test_learning_curves_skip_what_is_absent_and_mark_the_best_epoch():
    loss, separation = figures.learning_curves(HISTORY).axes
    assert figures.best_epoch(HISTORY) == 1
    assert [line.get_label() for line in loss.lines] == ["train", "val", "lowest validation loss, epoch 1"]
    assert "healthy, val" not in [line.get_label() for line in separation.lines]
    (disease_val,) = [line for line in separation.lines if line.get_label() == "disease, val"]
    assert disease_val.get_xdata().tolist() == [1, 2]
    assert figures.best_epoch({"epoch": [0], "train/loss": [0.1]}) is None


def test_infrared_spectra_run_from_high_wavenumbers_to_low():
    figure = figures.spectra(spectra(INFRARED))
    means, sampled, difference = figure.axes
    assert difference.get_xlim() == (1800, 1000)
    assert difference.get_xlabel() == "wavenumber (cm⁻¹)"
    assert len(sampled.lines) == 100 + 40
    assert "150 spectra" in means.get_legend().get_texts()[0].get_text()
    np.testing.assert_allclose(difference.lines[1].get_ydata(), 1, atol=0.1)


def test_single_spectra_are_means_and_nothing_is_sampled():
    given = figures.Spectra(np.ones((1, 5)), np.zeros((1, 5)), INFRARED, names=("marked", "unmarked"))
    means, difference = figures.spectra(given, "epoch 1").axes
    assert means.get_title(loc="left") == "epoch 1"
    assert [text.get_text() for text in means.get_legend().get_texts()] == ["marked", "unmarked"]
    np.testing.assert_array_equal(difference.lines[1].get_ydata(), np.ones(5))


@pytest.mark.parametrize(
    ("channels", "label", "limits"),
    [
        (Channels(3, (400.0, 500.0, 600.0), "nm"), "wavelength (nm)", (400, 600)),
        (Channels(3, (1.0, 2.0, 3.0)), "position", (1, 3)),
        (Channels(3, names=("red", "green", "blue")), "channel", None),
        (Channels(3), "channel", None),
    ],
)
def test_other_axes(channels, label, limits):
    axes = figures.spectra(spectra(channels)).axes[2]
    assert axes.get_xlabel() == label
    if limits:
        assert axes.get_xlim() == limits
    if channels.names:
        assert [t.get_text() for t in axes.get_xticklabels()] == list(channels.names)


def test_groups_are_named_and_every_sample_drawn():
    axes = figures.activation_by_group(["B", "A", "B"], [0, 1, 1], [0.1, 0.2, 0.3]).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A", "B"]
    assert sum(len(line.get_xdata()) for line in axes.lines) == 3
    unnamed = figures.activation_by_group([""], [1], [0.5]).axes[0]
    assert [t.get_text() for t in unnamed.get_xticklabels()] == ["(no group)"]


def test_a_figure_is_laid_out_once_for_all_files():
    figure = drawn()["roc"]
    first = file_of(figure, dpi=40)
    file_of(figure, "svg")
    assert file_of(figure, dpi=40) == first
