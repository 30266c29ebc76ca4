"""Pictures of samples, pixel by pixel, and where a gallery puts them."""

from __future__ import annotations

import numpy as np
import pytest

from compseg.plots.figures import activation_by_group
from compseg.plots.gallery import TRUTH_RGB, Tile, gallery, paint_activation, paint_mask, vmax_of
from compseg.plots.style import as_text, pixels
from hostile_names import NAMES

DISEASE, TISSUE, BACKGROUND = (213, 94, 0), (201, 206, 212), (244, 244, 242)


def colours(picture):
    return [tuple(colour) for colour in picture.reshape(-1, 3)]


def test_colours_show_what_is_active_and_what_is_marked():
    activation = np.array([[0.9, 0.1], [0.6, 0.0]], np.float32)
    tissue = np.array([[1, 1], [1, 0]], bool)
    assert colours(paint_mask((activation > 0.4) & tissue, tissue)) == [DISEASE, TISSUE, DISEASE, BACKGROUND]
    painted = paint_activation(activation, tissue, 1.0)
    assert painted[0, 0].sum() > painted[0, 1].sum()
    assert tuple(painted[1, 1]) == BACKGROUND


def test_truth_is_outlined_on_tissue_alone():
    tissue, truth = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    tissue[2:-2, 2:-2] = True
    truth[0:6, 3:9] = True  # extends beyond the tissue
    picture = paint_activation(np.full((12, 12), 0.5, np.float32), tissue, 1.0, truth)
    drawn = (picture == TRUTH_RGB).all(-1)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 5, 3, 8)
    assert not drawn[3:5, 4:8].any()  # the inside stays to be seen


def test_colours_go_to_one_or_less_for_faint_maps():
    assert vmax_of([np.linspace(0, 1, 101, dtype=np.float32)], 0.05) > 0.98
    assert vmax_of([np.full(9, 0.2, np.float32), np.full(9, 0.3, np.float32)], 0.05) == np.float32(0.3)
    assert vmax_of([np.full(9, 0.001, np.float32)], 0.05) == 0.05
    assert vmax_of([np.full(9, np.nan, np.float32)], 0.05) == 1
    assert vmax_of([np.empty(0, np.float32)], 0.05) == 1
    assert vmax_of([np.zeros(9, np.float32)], 0.0) == 1


def tiles(count, *titles):
    return [Tile(f"s{i}", f"x {i}", {title: np.zeros((4, 4, 3), np.uint8) for title in titles}) for i in range(count)]


def test_a_sample_is_a_row_or_across_a_column():
    rows = gallery(tiles(3, "activation", "truth"))
    assert words(rows) == ["s0", "x 0", "s1", "x 1", "s2", "x 2", "activation", "truth"]
    assert corners(rows) == [(x, y) for y in range(3) for x in range(2)]
    columns = gallery(tiles(3, "thumbnail", "activation"), "epoch 1", across=True)
    assert words(columns) == ["s0", "x 0", "s1", "x 1", "s2", "x 2"]
    assert corners(columns) == [(x, y) for x in range(3) for y in range(2)]
    assert columns.get_suptitle() == "epoch 1"
    for figure in (rows, columns):
        axes, picture = figure.axes[0], pixels(figure)
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= picture.shape[1]
            assert box.y0 >= 0
            assert box.y1 <= picture.shape[0]


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def corners(figure):
    """Column and row of each picture."""
    extents = [image.get_extent() for image in figure.axes[0].images]
    return [(int(left), int(top)) for left, _, _, top in extents]


def test_what_a_sample_lacks_stays_empty():
    mixed = gallery([*tiles(1, "activation"), *tiles(1, "thumbnail", "activation")])
    assert words(mixed)[-2:] == ["thumbnail", "activation"]
    assert corners(mixed) == [(1, 0), (0, 1), (1, 1)]


def test_a_picture_keeps_its_shape():
    wide = Tile("a", "b", {"activation": np.zeros((5, 10, 3), np.uint8)})
    assert gallery([wide]).axes[0].images[0].get_extent() == [0.0, 1.0, 0.75, 0.25]


@pytest.mark.filterwarnings("ignore:Glyph")  # the font lacks some scripts; then it shows boxes
@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_shown(name):
    tile = Tile(name, f"disease ({name})", {"activation": np.zeros((4, 4, 3), np.uint8)})
    pixels(gallery([tile, tile]))
    pixels(gallery([tile, tile], across=True))
    pixels(activation_by_group([name, "other"], [0, 1], [0.1, 0.2]))


def test_a_name_is_shown_as_it_is_in_one_line():
    assert as_text(r"a $\frac{$ b") == r"a \$\frac{\$ b"
    assert as_text("a\nb\udcff") == r"a\nb\udcff"
    assert as_text("n" * 300, 9) == "nnnnnnnn…"
