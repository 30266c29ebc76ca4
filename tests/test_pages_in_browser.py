"""The documentation in a browser, as files: anyone can read it, nothing is wider than a phone, the search finds."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from browser import browser, needs_browser
from running import HANGS

pytestmark = [needs_browser, pytest.mark.slow]
ROOT = Path(__file__).parents[1]
AXE = importlib.util.find_spec("axe_core_python")
PAGES = ("index", "getting-started", "tutorial", "how-to/your-own-data", "reference/keys", "reference/api/inference")
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
VIOLATIONS = """
axe.run().then((all) => all.violations
  .filter((v) => ["serious", "critical"].includes(v.impact))
  .map((v) => [v.id, v.nodes.map((node) => [node.html.slice(0, 100), node.failureSummary.slice(0, 200)]).slice(0, 5)]))
"""
# What sticks out to the right, unless it is scrolled by itself.
WIDER = """
[document.documentElement.scrollWidth - innerWidth, [...document.querySelectorAll("article *")]
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
  .filter((node) => !node.closest(".md-typeset__scrollwrap, pre"))
  .map((node) => node.outerHTML.slice(0, 100)).slice(0, 3)]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def opened():
    with browser() as page:
        yield page


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_it(site, opened, name, scheme, size):
    opened.open(site / f"{name}.html", *SIZES[size], prefers_color_scheme=scheme)
    assert opened.problems() == []
    assert opened.run("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
    assert opened.run(WIDER) == [0, []]
    if AXE:
        opened.run(Path(AXE.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8") + "; 0")
        assert opened.run(VIOLATIONS) == []


def test_the_search_finds_without_a_server(site, opened):
    opened.open(site / "index.html")
    opened.run("document.querySelector('.md-search__input').focus()")
    opened.call("Input.insertText", text="threshold")
    opened.until("document.querySelectorAll('.md-search-result__item a').length > 3")
    assert opened.run("document.querySelector('.md-search-result__link').href").startswith(site.as_uri())
    assert opened.problems() == []
