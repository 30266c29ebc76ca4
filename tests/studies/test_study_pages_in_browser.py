"""Pages of sweeps, comparisons and runs side by side, in a browser: on a desk and on a phone, for any reader."""

import csv
import json
import re

import numpy as np
import pytest

from browser import barriers, browser, needs_browser
from compseg.files import from_cell
from compseg.studies import summarise
from compseg.studies.comparison_page import write_comparison, write_comparison_html
from compseg.studies.plan import Layout
from hostile_names import NAMES

pytestmark = needs_browser
HOSTILE = ["</script><script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", *(name for name in NAMES if name)]


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


@pytest.fixture
def sweep_page(add_job, tmp_path):
    generator = np.random.default_rng(0)
    for number in range(12):
        model, rate = ("unet", "<b>segnet")[number % 2], 10 ** generator.uniform(-4, -1)
        names = ["val/loss", "test/dice_mean", *(f"test/metric_{i}_of_some_length" for i in range(14))]
        metrics = {name: float(generator.uniform()) for name in names}
        add_job(str(number), [f"model={model}", f"optimizer.lr={rate}"], metrics=metrics)
    summarise(tmp_path / "sweep", "val/loss")
    return tmp_path / "sweep" / "sweep.html"


@pytest.fixture
def comparison_page(made, tmp_path):
    spread = np.linspace(0.4, 0.6, 1000)
    methods = ["compseg", "a method with a long name that no phone has room for", "<i>other</i>"]
    outcomes = [
        made(0.2 + 0.35 * place + 0.05 * seed, method=method, seed=seed, replicates=spread)
        for place, method in enumerate(methods)
        for seed in (0, 1)
    ]
    layout = Layout("test", ("pixel_ap",), "supervised", ("all_ones",))
    return write_comparison_html(tmp_path / "comparison" / "comparison.html", outcomes, layout)


@pytest.mark.parametrize("kind", ["sweep_page", "comparison_page"])
def test_a_page_of_runs_is_sorted_and_pointed_at_on_any_width(request, page, kind):
    path = request.getfixturevalue(kind)
    for width in (1440, 390):
        page.open(path, width)
        assert page.run("document.documentElement.scrollWidth") <= width
    head = "document.querySelector('table.sortable th button')"
    first = "document.querySelector('table.sortable tbody tr').cells[0].textContent"
    page.run(f"{head}.click()")
    one = page.run(first)
    page.run(f"{head}.click()")
    assert page.run(first) != one
    assert page.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    page.run("document.querySelector('.dot').dispatchEvent(new PointerEvent('pointermove', {clientX: 9, clientY: 9}))")
    assert page.run("document.querySelector('.tip').textContent")
    assert page.problems() == []


@pytest.fixture
def hostile_sweep(add_job, tmp_path):
    for number, name in enumerate(HOSTILE):
        model = "model=" + json.dumps(name, ensure_ascii=False)  # as it is quoted on the command line
        add_job(str(number), [model], metrics={"val/loss": 0.1 * number}, why=name)
    summarise(tmp_path / "sweep", "val/loss")
    return tmp_path / "sweep" / "sweep.html"


@pytest.fixture
def hostile_comparison(made, tmp_path):
    """Cohorts, methods and left-out groups; the first two become parts of paths as they are, which a slash cannot."""
    names = [name for name in HOSTILE if not set(name) & set("/\0") and len(name) < 250 and name not in (".", "..")]
    outcomes = [
        made(0.5, cohort=name, method=name, held_out=name, why=name, replicates=np.linspace(0.4, 0.6, 1000))
        for name in names
    ]
    write_comparison(tmp_path / "comparison", outcomes, Layout("test", ("pixel_ap",), "supervised", ("all_ones",)))
    return tmp_path / "comparison" / "comparison.html"


@pytest.mark.parametrize(("kind", "column"), [("hostile_sweep", "model"), ("hostile_comparison", "method")])
def test_names_do_no_harm_to_a_page_of_runs(request, page, kind, column):
    path = request.getfixturevalue(kind)
    page.open(path, 390)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.problems() == []
    assert page.run("document.querySelectorAll('img[src=x], td script, h2 script, b b').length") == 0
    text = " ".join(page.run("document.body.textContent").split())
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        cells = {from_cell(row[column]) for row in csv.DictReader(file)}
    assert len(cells) > 10
    for name in cells:
        assert " ".join(name.split()) in text
    assert not re.search(r"(?<!\\)<(script|img)", path.with_suffix(".md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["sweep_page", "comparison_page"])
def test_a_page_of_runs_is_legible_on_a_phone_and_on_paper(request, page, kind):
    page.open(request.getfixturevalue(kind), 390)
    ticks = page.run("[...document.querySelectorAll('svg.chart')].map((one) => one.querySelectorAll('.tick').length)")
    assert ticks
    assert min(count for count in ticks if count) > 1
    page.open(request.getfixturevalue(kind), 700, media="print")
    # A number may be broken between its words, never between its digits.
    lines = """[...document.querySelectorAll('td.number')].map((cell) => {
      const range = document.createRange(); range.selectNodeContents(cell);
      return [range.getClientRects().length, cell.textContent.split(' ').length];
    })"""
    assert page.run(lines)
    assert all(rows <= words for rows, words in page.run(lines))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("kind", ["sweep_page", "comparison_page"])
def test_a_page_of_runs_is_for_any_reader(request, page, kind, width, scheme):
    page.open(request.getfixturevalue(kind), width, prefers_color_scheme=scheme)
    assert barriers(page) == []
