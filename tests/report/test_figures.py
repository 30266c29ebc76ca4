import sys

import numpy as np
import pytest

from compseg.inference.threshold import Threshold
from compseg.plots.style import paint_activation
from compseg.report import figures
from compseg.report.panels import caption, chosen, colour_ceiling, panels, ranked, spread
from compseg.samples import Channels
from made_maps import by_hand, mixture

THRESHOLD = Threshold(0.4, "fitted", 0.3, 0.5)
HISTORY = {
    "epoch": [0, 1, 2],
    "train/loss": [0.3, 0.2, 0.1],
    "val/loss": [0.3, 0.15, 0.2],
    "train/x_disease": [0.1, 0.2, 0.3],
    "train/x_healthy": [0.1, 0.05, 0.02],
    "val/x_disease": [np.nan, 0.2, 0.3],
}


def spectra(channels, n=150):
    rng = np.random.default_rng(0)
    return figures.Spectra(rng.normal(1, 0.1, (n, channels.count)), rng.normal(0, 0.1, (40, channels.count)), channels)


INFRARED = Channels(5, (1800.0, 1600.0, 1400.0, 1200.0, 1000.0), "cm-1")


@pytest.mark.parametrize("truth", [True, False])
def test_every_plot_labels_its_axes_and_can_be_drawn(truth, tmp_path):
    maps = mixture(8, truth=truth)
    drawn = [
        figures.roc(maps, THRESHOLD),
        figures.threshold_curves(maps, THRESHOLD),
        figures.activation_histogram(maps, THRESHOLD),
        figures.group_activation(maps),
        figures.learning_curves(HISTORY),
    ]
    for i, figure in enumerate(drawn):
        for axes in figure.axes:
            assert axes.get_xlabel()
            assert axes.get_ylabel()
        figure.savefig(tmp_path / f"{i}.png", dpi=40)
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_roc_draws_the_curve_and_says_its_area():
    axes = figures.roc(mixture(10, separation=5, spread=0), THRESHOLD).axes[0]
    assert "AUC 1.000" in axes.get_legend().get_texts()[1].get_text()
    only_chance = figures.roc(mixture(10)[1::2], THRESHOLD).axes[0]
    assert len(only_chance.lines) == 1


def test_gallery_has_a_row_a_sample_and_a_column_a_picture():
    maps = mixture(3)
    pictures = {m.info.name: np.zeros((9, 9, 3), np.uint8) for m in maps[:2]}
    figure = figures.gallery(maps, THRESHOLD, pictures)
    assert len(figure.axes) == 3 * 4
    assert [axes.get_title(loc="left") for axes in figure.axes[:4]] == [
        "reference",
        "activation",
        "thresholded",
        "truth",
    ]
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == [m.info.name for m in maps]
    assert not figure.axes[8].images  # the third sample has no reference picture
    assert len(figures.gallery(mixture(2, truth=False), THRESHOLD, {}).axes) == 2 * 2


def test_panels_show_what_is_thresholded_and_true():
    item = by_hand([[0.9, 0.1], [0.6, 0.9]], truth=[[1, 0], [0, 0]], tissue=[[1, 1], [1, 0]])
    row = panels(item, THRESHOLD, None, 1.0)
    assert list(row) == ["activation", "thresholded", "truth"]
    disease, tissue, background = (213, 94, 0), (201, 206, 212), (244, 244, 242)
    assert [tuple(c) for c in row["thresholded"].reshape(-1, 3)] == [disease, tissue, disease, background]
    assert [tuple(c) for c in row["truth"].reshape(-1, 3)] == [disease, tissue, tissue, background]
    painted = paint_activation(item.activation, item.tissue, 1.0)
    assert painted[0, 0].sum() > painted[0, 1].sum()


def test_faint_maps_get_their_own_scale():
    assert colour_ceiling(mixture(4, separation=8), THRESHOLD) > 0.9
    assert colour_ceiling(mixture(4, scale=0.01), Threshold(0.004, "", 0.003, 0.005)) < 0.011
    assert colour_ceiling([by_hand([0.0, 0.0])], Threshold(0.0, "", 0.0, 0.0)) == 1.0


def test_choice_is_by_rank():
    maps = mixture(20, separation=2)
    order = ranked(maps, THRESHOLD)
    assert [m.info.label for m in order] == [1] * 10 + [0] * 10
    picked = chosen(maps, THRESHOLD)
    assert [m.info.label for m in picked] == [1, 1, 1, 0, 0, 0]
    assert (picked[0], picked[2], picked[3], picked[5]) == (order[0], order[9], order[10], order[19])
    assert spread(order[:2], 5) == order[:2]
    assert spread([], 3) == []


def test_caption():
    item = by_hand([0.9, 0.1], truth=[1, 1], class_name="T")
    assert caption(item, THRESHOLD) == "disease (T) · 50 % marked · Dice 0.67"
    assert caption(by_hand([0.9, 0.1], label=0), THRESHOLD) == "healthy · 50 % marked"


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
    axes = figures.group_activation(mixture(12)).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A", "B"]
    assert sum(len(line.get_xdata()) for line in axes.lines) == 12
    unnamed = figures.group_activation([by_hand([0.5])]).axes[0]
    assert [t.get_text() for t in unnamed.get_xticklabels()] == ["(no group)"]


def test_histogram_shares_add_up_to_one():
    axes = figures.activation_histogram(mixture(8), THRESHOLD).axes[0]
    assert len(axes.patches) == 3 + 1  # healthy, disease by truth, other tissue; and the threshold's band
    for stairs in axes.patches[:3]:
        assert stairs.get_data().values.sum() == pytest.approx(1)
