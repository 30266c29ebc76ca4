import numpy as np
import pytest

from compseg.inference.threshold import Threshold
from compseg.report.pictures import (
    caption,
    chosen,
    colour_vmax,
    draw_figures,
    draw_histogram,
    draw_roc,
    ranked,
    spread,
    tiles_of,
)
from made_maps import by_hand, mixture

THRESHOLD = Threshold(0.4, "fitted", 0.3, 0.5, "truth")


@pytest.mark.parametrize("truth", [True, False])
def test_every_plot_labels_its_axes(truth):
    drawn = draw_figures(THRESHOLD, mixture(8, truth=truth), mixture(4, offset=8), {}, {}, None)
    assert list(drawn) == ["gallery", "roc", "threshold", "activations", "groups"]
    for name, figure in drawn.items():
        assert name == "gallery" or all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


def test_roc_draws_the_curve_and_says_its_area():
    axes = draw_roc(mixture(10, separation=5, spread=0), THRESHOLD).axes[0]
    assert "AUC 1.000" in axes.get_legend().get_texts()[1].get_text()
    only_chance = draw_roc(mixture(10)[1::2], THRESHOLD).axes[0]
    assert len(only_chance.lines) == 1


def test_gallery_has_a_row_a_sample_and_a_column_a_picture():
    maps = mixture(3)
    pictures = {m.info.name: np.zeros((9, 9, 3), np.uint8) for m in maps[:2]}
    tiles = tiles_of(maps, THRESHOLD, pictures)
    assert [tile.name for tile in tiles] == [m.info.name for m in maps]
    assert list(tiles[0].pictures) == ["thumbnail", "activation", "thresholded", "truth"]
    assert list(tiles[2].pictures) == ["activation", "thresholded", "truth"]
    assert list(tiles_of(mixture(2, truth=False), THRESHOLD, {})[0].pictures) == ["activation", "thresholded"]
    disease, tissue, background = (213, 94, 0), (201, 206, 212), (244, 244, 242)
    item = by_hand([[0.9, 0.1], [0.6, 0.9]], truth=[[1, 0], [0, 1]], tissue=[[1, 1], [1, 0]])
    (tile,) = tiles_of([item], THRESHOLD, {})
    shown = {kind: [tuple(c) for c in picture.reshape(-1, 3)] for kind, picture in tile.pictures.items()}
    assert shown["thresholded"] == [disease, tissue, disease, background]
    assert shown["truth"] == [disease, tissue, tissue, background]


def test_faint_maps_get_their_own_scale():
    assert colour_vmax(mixture(4, separation=8), THRESHOLD) > 0.9
    assert colour_vmax(mixture(4, scale=0.01), Threshold(0.004, "", 0.003, 0.005, "labels")) < 0.011
    assert colour_vmax([by_hand([0.0, 0.0])], Threshold(0.0, "", 0.0, 0.0, "fixed")) == 1.0


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


def test_histogram_has_healthy_tissue_and_disease_samples_split_by_the_truth():
    axes = draw_histogram(mixture(8), THRESHOLD).axes[0]
    assert len(axes.patches) == 3 + 1  # healthy, disease by truth, other tissue; and the threshold's band
    for stairs in axes.patches[:3]:
        assert stairs.get_data().values.sum() == pytest.approx(1)
    assert len(draw_histogram(mixture(8, truth=False), THRESHOLD).axes[0].patches) == 2 + 1
