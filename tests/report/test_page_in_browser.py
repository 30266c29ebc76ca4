"""The page of a run as people use it, in a browser: every number is that of an evaluation at the same threshold."""

from dataclasses import replace

import numpy as np
import pytest
from test_page import report, seen_of

from browser import barriers, browser, needs_browser
from compseg.evaluation.metrics import area_fraction, dice
from compseg.evaluation.tables import metrics_of
from compseg.evaluation.thresholds import fixed
from compseg.report.explain import Importance
from compseg.report.parts import Cell, Part, Shown, number
from compseg.samples import SampleInfo
from hostile_names import NAMES
from made_maps import mixture

pytestmark = needs_browser
WIDTHS = {"desk": (1440, 900), "phone": (390, 844)}
# What the tests do in the page.
HELP = """
function choose(id, value) {
  const node = document.getElementById(id);
  node.focus();
  node.value = value;
  node.dispatchEvent(new Event("input"));
}
function visible(list) {
  return [...document.querySelectorAll(`${list}:not([hidden])`)].map((node) => samples[node.dataset.index].name);
}
function live() {
  return Object.fromEntries([...document.querySelectorAll("#live b")].map((b) => [b.dataset.metric, b.textContent]));
}
function numbers() {
  const text = (node, of) => node.querySelector(of).textContent;
  return samples.map((s, i) => [s.name, text(rows[i], ".area"), text(rows[i], ".dice"), text(cards[i], ".area")]);
}
0
"""
CARDS, ROWS = "visible('#cards > li')", "visible('#table tbody tr')"


@pytest.fixture(scope="module")
def maps():
    """Some of disease, some not; names that are markup, long, or in other letters."""
    named = ["</script><script>alert(1)</script>", "\"'>", *NAMES[6:12]]
    made = [
        replace(item, info=SampleInfo(name or "x", item.info.label, "<b>T</b>", "test", item.info.group, f"p{i}"))
        for i, (item, name) in enumerate(zip(mixture(8, separation=2), named, strict=True))
    ]
    return [*made, *mixture(4, seed=5, offset=20)]


def beside_of(maps):
    part = Part("Metrics", "Of both", head=["metric", "<i>"], rows=[[Cell(m.info.name), number(0.5)] for m in maps])
    part.add("pairs", "Dice of each", {"series": [{"x": [0], "y": [1], "kind": "dots", "colour": "blue"}],
                                       "x": {"label": "a"}, "y": {"label": "b"}})  # fmt: skip
    return [part, Part("Maps", gallery=[Shown(m.info.name, True, "", [("one", ""), ("two", "")]) for m in maps])]


@pytest.fixture(scope="module")
def path(maps, tmp_path_factory):
    importance = Importance(2, *np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    about = {
        "warnings": ["In training, <i>something</i>"],
        "links": {"maps": "maps"},
        "maps": {m.info.name: "f" for m in maps},
    }
    folder = tmp_path_factory.mktemp("page")
    errors = {"spread": [0.1, 0.2], "wrong": [0.0, 0.5], "pixels": [10, 10]}
    more = {"val_maps": mixture(6, seed=9, offset=40), "seen": seen_of(maps, unsure=True), "errors": errors}
    more["beside"] = beside_of(maps)
    return report(folder, maps, about, importance=importance, **more)


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


def shown(page, script):
    return page.run(f"[...document.querySelectorAll({script!r})].map((node) => node.textContent)")


@pytest.fixture
def opened(page, path):
    page.open(path)
    page.run(HELP)
    return page


def test_the_slider_moves_every_number_to_that_of_an_evaluation(opened, maps):
    by_name, steps, pictures = {m.info.name: m for m in maps}, opened.run("steps"), set()
    # The first stop is where the page opens.
    for k in (opened.run("at"), 3, len(steps) // 2, len(steps) - 2):
        opened.run(f"choose('threshold', {k})")
        threshold = fixed(steps[k])
        wanted = {name: f"{value:.3f}" for name, (value, _) in metrics_of(maps, threshold).items()}
        assert opened.run("live()") == {
            name: wanted[name] for name in ("dice_mean", "area_auc", "healthy_area_fraction")
        }
        for name, area, score, on_card in opened.run("numbers()"):
            item = by_name[name]
            assert area == f"{area_fraction(item, threshold):.4f}"
            assert on_card == f"{100 * area_fraction(item, threshold):.1f} %"
            assert score == ("" if dice(item, threshold) is None else f"{dice(item, threshold):.4f}")
        marked = np.concatenate([threshold.apply(m.activation, m.tissue)[m.tissue] for m in maps])
        region = np.concatenate([m.region[m.tissue] for m in maps])
        cells = [marked & region, ~marked & region, marked & ~region, ~marked & ~region]
        assert [int(cell.replace(",", "")) for cell in shown(opened, "#pixel-table td")] == [c.sum() for c in cells]
        called = [(area_fraction(m, threshold) > opened.run("cut"), m.info.label) for m in maps]
        counts = [sum(pair == kind for pair in called) for kind in ((True, 1), (False, 1), (True, 0), (False, 0))]
        assert [int(cell) for cell in shown(opened, "#sample-table td")] == counts
        command = opened.run("document.getElementById('command').textContent")
        assert float(command.rpartition("threshold=")[2]) == steps[k]
        opened.settle()
        pictures.add(opened.run("document.querySelector('.map canvas').toDataURL()"))
    assert len(pictures) > 2
    assert opened.problems() == []


def test_sorting_and_filters_act_on_cards_and_table_alike(opened, maps):
    assert sorted(opened.run(CARDS)) == sorted(m.info.name for m in maps)
    opened.run("choose('label', '1')")
    assert sorted(opened.run(CARDS)) == sorted(m.info.name for m in maps if m.info.label)
    opened.run("choose('group', '=A'); choose('sort', 'area')")
    both = [m for m in maps if m.info.label and m.info.group == "A"]
    order = sorted(both, key=lambda m: -area_fraction(m, fixed(0.5)))
    assert opened.run(CARDS) == opened.run(ROWS) == [m.info.name for m in order]
    assert opened.run("document.getElementById('count').textContent") == f"{len(both)} of {len(maps)} samples"
    opened.run("choose('label', ''); choose('group', 'all'); choose('find', '日本')")
    assert opened.run(CARDS) == ["日本語"]
    opened.run("choose('find', ''); choose('errors', 'missed')")
    cut = opened.run("cut")
    assert set(opened.run(CARDS)) == {m.info.name for m in maps if m.info.label and area_fraction(m, fixed(0.5)) <= cut}
    opened.run("document.querySelector('th[data-sort=x] button').click()")
    assert opened.run("document.querySelector('th[data-sort=x]').getAttribute('aria-sort')") == "descending"


def test_the_large_view_is_worked_by_keys_alone(opened):
    page = opened
    page.run("document.querySelector('#cards button').focus()")
    page.press("Enter", "\r")
    page.until("document.getElementById('large').open")
    page.settle()
    first = page.run("document.getElementById('large-name').textContent")
    assert first == page.run("samples[order[0]].name")
    assert page.run("document.querySelectorAll('#large svg.chart').length") == 2
    assert page.run("document.querySelectorAll('#large .panels figure').length") == 5
    page.run("document.querySelector('#large .panels figure').focus()")
    page.press("Enter", "\r")
    assert page.run("document.querySelector('#large .panels figure').getAttribute('aria-pressed')") == "true"
    page.press("ArrowRight")
    assert page.run("document.getElementById('large-name').textContent") == page.run("samples[order[1]].name")
    page.press("ArrowLeft")
    page.press("Escape")
    page.until("!document.getElementById('large').open")
    assert page.run("document.activeElement.className") == "open script-only"
    page.run("document.getElementById('threshold').focus()")
    before = page.run("at")
    page.press("ArrowRight")
    assert page.run("at") == before + 1
    page.run("document.getElementById('reset').click()")
    assert page.run("at") == before
    page.run("choose('value', '0.21')")
    assert abs(page.run("steps[at]") - 0.21) < 0.01
    assert page.problems() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_any_width_and_any_reader(page, path, width, scheme):
    page.open(path, *WIDTHS[width], prefers_color_scheme=scheme)
    page.run(HELP)
    assert page.run("document.documentElement.scrollWidth") <= WIDTHS[width][0]
    for view in ("0", "open(order[0])"):
        page.run(view)
        page.settle()
        assert barriers(page) == []
    assert page.problems() == []


def test_it_prints_with_its_colours_and_says_something_without_script(page, path):
    page.open(path, media="print")
    assert page.run("getComputedStyle(document.querySelector('.ramp')).printColorAdjust") == "exact"
    assert page.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    page.until("samples.every((sample) => sample.pixels)")
    page.run("dispatchEvent(new Event('beforeprint'))")  # all maps are on paper, not those in view
    assert page.run("cards.every((card) => card.querySelector('.marked canvas'))")
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.navigate", url=path.as_uri())
    page.until("Boolean(document.querySelector('#cite'))")
    look = "getComputedStyle(document.querySelector({!r})).display"
    assert page.run(look.format(".bar")) == "none"
    assert page.run(look.format("noscript img")) != "none"
    assert "Scripts are switched off" in page.run("document.body.innerText")
    page.call("Emulation.setScriptExecutionDisabled", value=False)
