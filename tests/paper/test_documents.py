"""docs/paper.md names nothing that is not there, and no value that is not so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from compseg.config import compose

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]
QUOTED = re.findall(r"`([^`\n]+)`", PAGE)
SETTINGS = sorted({word for row in ROWS for word in re.findall(r"`([\w.]+=[^` ]+)`", row)})
FILES = sorted({word for word in QUOTED if re.fullmatch(r"(conf|docs|src|tests)/[\w/]+\.\w+", word)})
TESTS = sorted({word for word in QUOTED if "::" in word})
LINKS = sorted(set(re.findall(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)", PAGE)))


def test_the_page_is_full():
    assert min(map(len, (FILES, TESTS, LINKS))) > 3
    assert len(SETTINGS) > 15


@pytest.mark.parametrize("name", FILES)
def test_files(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", TESTS)
def test_tests(name):
    path, function = name.split("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("target", LINKS)
def test_links(target):
    assert (ROOT / "docs" / target).is_file()


def test_settings():
    composed = compose("train", ["experiment=paper"])
    for setting in SETTINGS:
        key, value = setting.split("=", 1)
        assert OmegaConf.select(composed, key) == yaml.safe_load(value), setting


def test_functions_beside_a_file():
    """`file.py` (`name`): the name is defined there."""
    pairs = re.findall(r"`(src/[\w/]+\.py)` \(`(\w+)`\)", PAGE)
    assert pairs
    for path, function in pairs:
        assert f"\ndef {function}(" in (ROOT / path).read_text(encoding="utf-8"), (path, function)
