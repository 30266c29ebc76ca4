import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from compseg.evaluation.metrics import dice
from compseg.evaluation.shortcuts import Shortcuts
from compseg.evaluation.tables import flat_metrics, metrics_of_splits
from compseg.evaluation.thresholds import fixed
from compseg.inference.threshold import Threshold
from compseg.report.explain import Importance, Seen
from compseg.report.page import About, Judged, history_columns, map_uri, write_figures, write_report
from compseg.report.steps import OFF_TISSUE
from compseg.samples import Channels
from hostile_names import NAMES
from made_maps import by_hand, mixture

THRESHOLD = Threshold(0.5, "fitted to the truth of 7 validation samples", 0.4, 0.6, "truth")
SECTIONS = ["verdict", "gallery", "samples-apart", "samples", "spectra", "learning", "glossary", "metrics",
            "configuration", "environment", "cite"]  # fmt: skip
VOID = {"meta", "img", "br", "link", "hr", "input"}
CHANNELS = Channels(4, (1700.0, 1500.0, 1300.0, 1100.0), "cm-1")


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
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def outline_of(path):
    outline = Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    outline.close()
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    return outline


def data_of(path):
    raw = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', raw, re.DOTALL)[1])


def seen_of(maps, channels=CHANNELS, picture=(30, 20), unsure=False):
    """What would have been seen of images whose spectra are 2 inside and 1 outside."""
    spectra = np.array([[2.0] * channels.count, [1.0] * channels.count] * 2, np.float32)
    pixels = np.full((9, channels.count), 2, np.float32), np.ones((9, channels.count), np.float32)
    with_axis = channels.spectral
    return {
        m.info.name: Seen(
            np.full((*picture, 3), 200, np.uint8),
            {},
            spectra if with_axis else None,
            pixels if with_axis and m.info.label else None,
            spread=m.activation / 2 if unsure else None,
        )
        for m in maps
    }


def report(tmp_path, maps, about=None, threshold=THRESHOLD, **changed):
    channels = changed.pop("channels", CHANNELS)
    given = {
        "metrics": flat_metrics(metrics_of_splits([], maps, threshold), threshold, 0.1),
        "threshold": threshold,
        "test_maps": maps,
        "val_maps": [],
        "shortcuts": Shortcuts(None, [], None),
        "history": {"epoch": [0, 1], "train/loss": [0.2, 0.1], "val/loss": [0.2, 0.15]},
        "seen": seen_of(maps, channels),
        "importance": None,
    }
    page = {
        "title": "phantom, unet",
        "channels": channels,
        "kept": 1,
        "config_text": "model:\n  _target_: compseg.models.UNet\n",
        "environment": {"python": "3.11", "packages": {"torch": "2.8"}},
    }
    given |= changed
    about = About(**(page | (about or {})))
    judged = Judged(*(given.pop(name) for name in ("threshold", "test_maps", "val_maps", "history", "seen")))
    given["figures"] = write_figures(tmp_path / "figures", judged, about.channels)
    return write_report(tmp_path / "report.html", about, judged, **given)


def test_page_holds_every_section_and_stands_alone_beside_its_figures(tmp_path):
    maps = mixture(8)
    importance = Importance(2, np.ones(4, np.float32), np.ones(4, np.float32), None)
    path = report(tmp_path, maps, {"warnings": ["collapsed"], "links": {"maps": "maps"}}, importance=importance)
    outline, raw = outline_of(path), path.read_text(encoding="utf-8")
    assert [name for name in outline.ids if name in SECTIONS] == SECTIONS
    markup = re.sub(r"<script.*?</script>", "", raw, flags=re.DOTALL)
    assert not re.search(r"https?:|@import|url\(|(src|href)=\"(?!data:image/|#|maps\")", markup)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in outline.images)
    text = " ".join(outline.text)
    for words in ("area AUC", "prevalence", "fitted to the truth of 7", "collapsed", "_target_", '"torch": "2.8"'):
        assert words in text
    assert all(m.info.name in text for m in maps)
    assert path.stat().st_size < 3e6
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names == {
        f"{n}.png" for n in ("gallery", "roc", "threshold", "activations", "groups", "learning", "spectra")
    }
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "figures"}


def test_page_reads_well_without_truth_history_pictures_and_spectra(tmp_path):
    path = report(tmp_path, mixture(8, truth=False), history={}, seen={}, channels=Channels(1))
    outline = outline_of(path)
    assert not {"learning", "spectra"} & set(outline.ids)
    text = " ".join(outline.text)
    assert "unchecked" in text
    for never in ("Dice 0", "nan", "None", "inf "):
        assert never not in text


def test_page_for_one_class_and_one_sample(tmp_path):
    text = " ".join(outline_of(report(tmp_path, [by_hand([[0.2, 0.7]], label=0)])).text)
    assert "Only one class is in the test split" in text


def test_what_users_type_is_escaped(tmp_path):
    names = [*NAMES, "\"><img src=x onerror='alert(1)'>", "</script><script>alert(2)</script>", "<!--", "{{ 7 * 7 }}"]
    maps = [by_hand([[0.2, 0.7]], name=n, label=i % 2, group=n, class_name=n, patient=n) for i, n in enumerate(names)]
    path = report(tmp_path, maps, {"title": "<i>run</i>\n'\"", "config_text": "a: <b>", "environment": {"<u>": "&"}})
    raw = path.read_text(encoding="utf-8")
    assert len(re.findall(r"<script", raw)) == 2
    assert not re.search(r"<b>(?!\d)|<i>|<u>|<img src=x|<!--", raw.replace("<b></b>", ""))
    assert "&lt;i&gt;run&lt;/i&gt;" in raw
    assert "{{ 7 * 7 }}" in raw
    outline_of(path)
    found = data_of(path)
    assert sorted(s["name"] for s in found["samples"]) == sorted(names)
    assert {s["name"] for s in found["groups"]} == set(names)


@pytest.mark.parametrize("scale", [1.0, 0.004])
def test_the_page_holds_what_an_evaluation_finds_at_each_step(tmp_path, scale):
    threshold = Threshold(0.5 * scale + 1e-9, "fitted", 0.4 * scale, 0.6 * scale, "truth")
    maps = mixture(8, scale=scale)
    found = data_of(report(tmp_path, maps, threshold=threshold))
    assert found["steps"][found["fitted"]] == threshold.value
    assert len(found["steps"]) > 100
    by_name = {item.info.name: item for item in maps}
    for sample in found["samples"]:
        item, (height, width) = by_name[sample["name"]], sample["shape"]
        content = zlib.decompress(base64.b64decode(sample["codes"]))
        codes = np.frombuffer(content[: height * width], np.uint8).reshape(height, width)
        truth = np.unpackbits(np.frombuffer(content[height * width :], np.uint8))[: codes.size].reshape(codes.shape)
        assert (truth == item.region).all()
        for k, step in enumerate(found["steps"]):
            marked = fixed(step).apply(item.activation, item.tissue)
            assert (((codes > k) & (codes != OFF_TISSUE)) == marked).all()
            assert sample["above"][k] == marked.sum()
            assert sample["hits"][k] == (marked & item.region).sum()
            if sample["judged"]:
                assert 2 * sample["hits"][k] / (sample["above"][k] + sample["disease"]) == dice(item, fixed(step))


def test_the_page_shows_where_views_differ(tmp_path):
    maps = mixture(4)
    errors = {"spread": [0.1, 0.2], "wrong": [0.0, 0.5], "pixels": [10, 10]}
    path = report(tmp_path, maps, seen=seen_of(maps, unsure=True), errors=errors)
    found = data_of(path)
    assert "errors-plot" in outline_of(path).ids
    assert found["errors"] == errors
    for item in maps:
        shown = np.frombuffer(zlib.decompress(base64.b64decode(found["spread"]["of"][item.info.name])), np.uint8)
        values = np.minimum(item.activation.ravel() / 2, found["spread"]["vmax"])
        assert np.abs(shown / 254 * found["spread"]["vmax"] - values).max() < 0.003
        assert found["spread"]["mean"][item.info.name] == pytest.approx(item.activation[item.tissue].mean() / 2)


def test_forty_large_samples_stay_below_ten_megabytes(tmp_path):
    generator, maps = np.random.default_rng(0), mixture(40, size=128)
    noise = generator.integers(0, 255, (500, 400, 3), dtype=np.uint8)
    seen = {m.info.name: Seen(noise, {}) for m in maps}
    path = report(tmp_path, maps, seen=seen, channels=Channels(3))
    assert path.stat().st_size < 10e6
    assert len(data_of(path)["samples"]) == 40


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
