"""The benchmarks run; their figures are for `make bench`, on a quiet machine."""

from __future__ import annotations

from pathlib import Path

import common
import corrections
import gpu_default
import gpu_paper
import prediction
import pytest
import run
import torch
import whole_path
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_part_has_its_place_on_the_page():
    page = common.PAGE.read_text()
    for part in run.PARTS:
        assert (BENCHMARKS / f"{part}.py").is_file()
        assert f"<!-- {part}: made by benchmarks/run.py -->" in page
        assert f"<!-- end of {part} -->" in page


def test_a_table_replaces_the_one_before_and_nothing_else(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n\n<!-- a: made by benchmarks/run.py -->\nold\n<!-- end of a -->\n\nSaid by hand.\n")
    monkeypatch.setattr(common, "PAGE", page)
    for seconds in (1.0, 3.0):
        common.put("a", common.table([common.Row("this", seconds, "that", 2.0)]))
    text = page.read_text()
    assert "| this | 3.0000 | that | 2.0000 | 1.500 |" in text
    assert "old" not in text
    assert "1.0000" not in text
    assert text.startswith("# Speed\n")
    assert text.endswith("<!-- end of a -->\n\nSaid by hand.\n")
    with pytest.raises(ValueError, match="no place for b"):
        common.put("b", "")


def test_the_papers_training_runs_small_on_a_processor(tmp_path):
    size = gpu_paper.Size(pixels=16, channels=8, width=4, warm_up=1, epochs=1, matmul=64)
    row = gpu_paper.measure(tmp_path, size)[0]
    assert row.what.startswith("14 steps of an epoch, compile=None: ")
    assert row.ours > 0
    assert row.theirs > 0  # how they compare is for the benchmark to say


def test_the_default_path_runs_small_on_a_processor(tmp_path):
    size = gpu_default.Size(pixels=24, channels=12, count=8, epochs=1, mosaic=48, matmul=64)
    rows = gpu_default.measure(tmp_path, size)
    assert [row.what.split(",")[0].split(" of ")[0] for row in rows] == [
        "pseudo-labeller", "1 epochs", "evaluation and report", "prediction",
    ]  # fmt: skip
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)


@pytest.mark.slow
def test_each_script_goes_from_files_to_maps_and_figures(tmp_path):
    rows = whole_path.measure(tmp_path, size=24, channels=12, count=8, epochs=1)
    assert len(rows) == 3 * 2
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)
    for folder in ("plain_monai", "lightning_template"):
        assert len(list((tmp_path / folder).glob("A*.npy"))) == 8
        assert (tmp_path / folder / "roc.png").is_file()
    assert (tmp_path / "compseg" / "report.html").is_file()


def test_flops_are_counted_and_weights_kept():
    """A 1x1 convolution of 3 to 5 channels: 30 operations a pixel forward, as many for each of two gradients."""
    module = nn.Module()
    module.segmenter = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 5, 1, bias=False))
    before = [weight.clone() for weight in module.segmenter.parameters()]
    first, second = (2 * 3 * outputs * 2 * 8 * 8 for outputs in (3, 5))
    assert gpu_paper.flops_of(module, {"image": torch.rand(2, 3, 8, 8).half()}) == 2 * first + 3 * second
    assert all(torch.equal(*pair) for pair in zip(before, module.segmenter.parameters(), strict=True))


def test_corrections_are_measured_beside_the_reference(tmp_path):
    pytest.importorskip("biospectools", reason="pip install biospectools==0.4.0")
    rows = corrections.measure(tmp_path, pixels=512, ours=32, theirs=1)
    assert len(rows) == 3
    assert all(row.ours < row.theirs for row in rows[1:])


def test_each_network_maps_a_mosaic(tmp_path):
    rows = prediction.measure(tmp_path, size=128, channels=8)
    assert len(rows) == 5 * len(prediction.NETWORKS)
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)
    assert all(row.ours < row.theirs for row in rows[4::5])  # the smallest mosaic keeps the bar of the largest
