import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from compseg.evaluation.shortcuts import Shortcuts
from compseg.evaluation.tables import flat_metrics, metrics_of_splits
from compseg.inference.threshold import Threshold
from compseg.plots.figures import Spectra
from compseg.report import history_columns, write_report
from compseg.report.page import map_uri
from compseg.samples import Channels
from made_maps import by_hand, mixture

THRESHOLD = Threshold(0.5, "fitted to the truth of 7 validation samples", 0.4, 0.6, "truth")
SECTIONS = ["verdict", "gallery", "samples-apart", "samples", "metrics", "configuration", "environment"]
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Outline(HTMLParser):
    """Fails on tags that do not nest; keeps ids, images and text."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.images, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline_of(path):
    outline = Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    outline.close()
    assert outline.open == []
    return outline


def report(tmp_path, maps, **changed):
    given = {
        "title": "phantom, unet",
        "metrics": flat_metrics(metrics_of_splits([], maps, THRESHOLD), THRESHOLD, 0.1),
        "threshold": THRESHOLD,
        "test_maps": maps,
        "val_maps": [],
        "shortcuts": Shortcuts(None, [], None),
        "history": {"epoch": [0, 1], "train/loss": [0.2, 0.1], "val/loss": [0.2, 0.15]},
        "thumbnails": {m.info.name: np.full((30, 20, 3), 200, np.uint8) for m in maps},
        "spectra": Spectra(np.ones((9, 4)), np.zeros((9, 4)), Channels(4, (4.0, 3.0, 2.0, 1.0), "cm-1")),
        "config_text": "model:\n  _target_: compseg.models.UNet\n",
        "environment": {"python": "3.11", "packages": {"torch": "2.8"}},
    }
    return write_report(tmp_path / "report.html", **(given | changed))


def test_page_holds_every_section_and_stands_alone_beside_its_figures(tmp_path):
    maps = mixture(8)
    path = report(tmp_path, maps)
    outline, raw = outline_of(path), path.read_text(encoding="utf-8")
    assert outline.ids == [*SECTIONS[:3], "learning", "spectra", *SECTIONS[3:]]
    assert not re.search(r"https?:|//[a-z]|<script|@import|url\(", raw)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in outline.images)
    text = " ".join(outline.text)
    for words in ("area AUC", "prevalence", "fitted to the truth of 7", "What is weak", "_target_", '"torch": "2.8"'):
        assert words in text
    assert all(m.info.name in text for m in maps)
    assert path.stat().st_size < 3e6
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names == {
        f"{n}.png" for n in ("gallery", "roc", "threshold", "activations", "groups", "learning", "spectra")
    }
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "figures"}


def test_page_reads_well_without_truth_history_thumbnails_and_spectra(tmp_path):
    path = report(tmp_path, mixture(8, truth=False), history={}, thumbnails={}, spectra=None)
    outline = outline_of(path)
    assert outline.ids == SECTIONS
    text = " ".join(outline.text)
    assert "unchecked" in text
    for never in ("Dice 0", "mean Dice", "nan", "None", "inf"):
        assert never not in text


def test_page_for_one_class_and_one_sample(tmp_path):
    text = " ".join(outline_of(report(tmp_path, [by_hand([[0.2, 0.7]], label=0)], spectra=None)).text)
    assert "Only one class is in the test split" in text
    assert "none in the test split" in text


def test_what_users_type_is_escaped(tmp_path):
    item = by_hand([[0.2, 0.7]], group="<b>A</b>", class_name="<script>alert(1)</script>")
    path = report(tmp_path, [item], title="<i>run</i>", config_text="a: <b>", environment={"<u>": "&"}, spectra=None)
    raw = path.read_text(encoding="utf-8")
    assert not re.search(r"<script|<b>|<i>|<u>", raw)
    assert "&lt;i&gt;run&lt;/i&gt;" in raw
    outline_of(path)


def test_large_pictures_are_made_small_and_many_samples_thinned(tmp_path):
    maps = mixture(60, size=12)
    large = {m.info.name: np.random.default_rng(0).integers(0, 255, (600, 400, 3), dtype=np.uint8) for m in maps}
    path = report(tmp_path, maps, thumbnails=large)
    text = " ".join(outline_of(path).text)
    assert "48 of 60 test samples, evenly spaced by rank" in text
    assert path.stat().st_size < 3e6


def test_history_is_read_with_gaps(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,train/loss,val/loss\n0,0.5,\n1,0.25,0.3\n")
    history = history_columns(tmp_path)
    assert history["epoch"] == [0, 1]
    assert history["train/loss"] == [0.5, 0.25]
    assert np.isnan(history["val/loss"][0])
    assert history_columns(tmp_path / "nothing") == {}
    (tmp_path / "history.csv").write_text("epoch\n")
    assert history_columns(tmp_path) == {}


@pytest.mark.parametrize("shape", [(40, 90), (300, 200)])
def test_pictures_keep_their_shape_and_colours(shape):
    colours = np.array([[213, 94, 0], [201, 206, 212]], np.uint8)
    picture = colours[np.random.default_rng(0).integers(0, 2, shape)]
    content = base64.b64decode(map_uri(picture).removeprefix("data:image/png;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert max(shown.shape) <= 128
    assert shown.shape[0] / shown.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.02)
    assert {tuple(c) for c in shown.reshape(-1, 3)} == {tuple(c) for c in colours}
