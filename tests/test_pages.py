"""The pages: every link leads somewhere, the index lists every page, and the notebook runs as written."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
import yaml

from compseg.api import Prediction, Run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MADE = {DOCS / "reference/keys.md", DOCS / "tutorial.md"}  # while the pages are built
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(page):
    """The anchors that MkDocs gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", _ascii(re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading))) for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading.strip().lower()) for heading in plain}


def _ascii(text):
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    lost = []
    for path, anchor in LINK.findall(without_code(page.read_text())):
        target = (page.parent / path).resolve() if path else page
        if target not in MADE and not target.exists():
            lost.append(path)
        elif anchor and target.suffix == ".md" and target not in MADE and anchor not in anchors_of(target):
            lost.append(f"{path}#{anchor}")
    assert lost == []


def test_the_index_and_the_navigation_list_every_page():
    def paths(node):
        if isinstance(node, str):
            return {node}
        return set().union(*map(paths, node.values() if isinstance(node, dict) else node))

    # The hook's own tag is no plain YAML, nor needed here.
    navigation = paths(yaml.safe_load((ROOT / "mkdocs.yml").read_text().partition("nav:")[2]))
    pages = {page.relative_to(DOCS).as_posix() for page in [*PAGES, *MADE]}
    assert navigation == pages
    linked = {path for path, _ in LINK.findall((DOCS / "index.md").read_text())}
    assert pages - linked == {"index.md", "tutorial.md"}
    assert "tutorial.ipynb" in linked  # whose page is made of it


def test_pages_open_as_files_and_fetch_nothing():
    settings = (ROOT / "mkdocs.yml").read_text()
    for line in ("use_directory_urls: false", "font: false", "extra_css: [assets/pages.css]", "scheme: slate"):
        assert line in settings
    assert "@import" not in (DOCS / "assets/pages.css").read_text()


def cells():
    return json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]


def test_the_notebook_is_stored_without_outputs():
    assert {cell["cell_type"] for cell in cells()} == {"markdown", "code"}
    assert len({cell["id"] for cell in cells()}) == len(cells())
    for cell in cells():
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile("".join(cell["source"]), "tutorial.ipynb", "exec")


@pytest.mark.slow
def test_the_notebook_runs_as_written(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    found = {}
    for cell in cells():
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), found)
    assert isinstance(found["run"], Run)
    assert isinstance(found["found"], Prediction)
    assert found["activation"].shape == found["mask"].shape == found["image"].shape[:2]
    assert (found["found"].map("new") == found["activation"]).all()
    assert 0 <= found["run"].metrics["test/area_auc"] <= 1
    said = capfd.readouterr().out
    assert "area AUC" in said
    assert "tissue pixels are marked" in said
