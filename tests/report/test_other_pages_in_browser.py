"""Runs side by side, and a cohort's page, in a browser: with any names, on a desk and on a phone, for any reader."""

from dataclasses import replace

import numpy as np
import pytest
from test_side_by_side import judged

from browser import barriers, browser, needs_browser
from compseg.cohort import Cohort, prepare
from compseg.report.cohort_page import write_cohort_page
from compseg.report.side_by_side import write_side_by_side
from compseg.samples import Channels, SampleArrays, SampleInfo
from hostile_names import NAMES, READABLE, rename_samples
from made_maps import mixture

pytestmark = needs_browser
HOSTILE = ["</script><script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", *(name for name in NAMES if name)]


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


class Cubes:
    """A source whose groups, classes and patients are called as nobody should call them."""

    def infos(self):
        return [
            SampleInfo(f"s{i}", i % 2, name[:200], "test", name[:200], name[:200]) for i, name in enumerate(HOSTILE)
        ]

    def read(self, info):
        image = np.random.default_rng(len(info.name)).random((6, 7, 5)).astype("f4")
        return SampleArrays(image, tissue=np.indices((6, 7))[0] > 0)

    def channels(self):
        return Channels(5, (1800.0, 1700.0, 1600.0, 1500.0, 1400.0), "cm-1")

    def provenance(self):
        return {}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    maps = [
        replace(item, info=replace(item.info, name=name))
        for item, name in zip(mixture(len(HOSTILE)), HOSTILE, strict=True)
    ]
    runs = [judged(root / name, maps, value) for name, value in (("<b>日本</b>", 0.5), ("n" * 200, 0.3))]
    prepare(Cubes(), root / "c.zarr", splits={"train": 0, "val": 0, "test": 1, "seed": 0}, progress=False)
    rename_samples(root / "c.zarr", READABLE)
    return {
        "side by side": write_side_by_side(runs, root / "both.html"),
        "cohort": write_cohort_page(Cohort.open(root / "c.zarr"), root / "shown"),
    }


@pytest.mark.parametrize("kind", ["side by side", "cohort"])
def test_names_do_no_harm_to_a_page(page, pages, kind):
    for width in (1440, 390):
        page.open(pages[kind], width)
        assert page.run("document.documentElement.scrollWidth") <= width
    assert page.problems() == []
    text = page.run("document.body.textContent")
    for name in READABLE:
        assert " ".join(name.split()) in " ".join(text.split())
    assert page.run("document.querySelectorAll('b b, img[src=x], h3 script').length") == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("kind", ["side by side", "cohort"])
def test_a_page_is_for_any_reader(page, pages, kind, width, scheme):
    page.open(pages[kind], width, prefers_color_scheme=scheme)
    assert barriers(page) == []
