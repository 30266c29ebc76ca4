"""A model card holds what the run's files hold, and shows a stranger's words as words."""

from __future__ import annotations

import json
import re
import shutil

import markdown
import pytest
import yaml

from compseg.exports.card import text, write_card
from compseg.files import checked_json
from compseg.monitor.collapse import Finding, write_findings
from hostile_names import NAMES
from running import run_here


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.run, tmp_path / "run")
    return tmp_path / "run"


def head_and_page(path):
    _, head, page = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), page


def test_a_card_says_what_the_run_holds(trained, tmp_path):
    out = tmp_path / "card"
    assert run_here("export", f"run={trained.run}", "format=card", f"out={out}", "license=cc-by-4.0") == 0
    head, page = head_and_page(out / "README.md")
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "compseg")
    metrics = json.loads((trained.run / "metrics.json").read_text())
    value, low, high = (metrics[f"test/dice_mean{end}"] for end in ("", "_ci_low", "_ci_high"))
    assert f"| `test/dice_mean` | {value:.3f} | {low:.3f} to {high:.3f} | mean Dice of disease samples |" in page
    assert "| train | 50 healthy and 50 disease samples" in page
    assert "8, from 1800 to 948 cm-1" in page
    for words in ("no medical device", "whole samples", "sample labels alone", "cc-by-4.0", "StandardNormalVariate"):
        assert words in page
    assert "\n\n\n\n" not in page


def test_what_is_not_there_is_said(run, tmp_path):
    for name in ("metrics.json", "samples.csv"):
        (run / name).unlink()
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"(?m)^  path: .*", "  path: gone.zarr", config))
    (run / ".checksums/config.yaml.sha256").unlink()
    write_findings(run, [Finding(0, 1, 1, "empty", "the maps are *empty*", "", False)])
    (path,) = write_card(run, tmp_path / "card")
    head, page = head_and_page(path)
    assert head["license"] == "unknown"
    for words in ("was not evaluated", "no longer where it was", "Not stated", r"the maps are \*empty\*"):
        assert words in page


@pytest.mark.parametrize("name", [name for name in NAMES if name.strip()])
def test_a_name_is_shown_and_not_obeyed(name):
    shown = markdown.markdown(f"| a |\n|---|\n| {text(name)} |\n", extensions=["tables"])
    assert shown.count("<td>") == 1
    assert "<script" not in shown
    assert "\x1b" not in shown


def test_a_card_of_a_run_with_such_a_name_is_harmless(run, tmp_path):
    named = run.rename(tmp_path / ("<script>alert(1)<b>'\"|`*日本" + "n" * 200))
    (path,) = write_card(named, tmp_path / "card")
    _, page = head_and_page(path)
    shown = markdown.markdown(page, extensions=["tables"])
    assert "日本" in shown
    assert not re.search("<(script|b)>", shown)


def test_a_licence_of_several_words_is_one_field(run, tmp_path):
    checked_json(run / "metrics.json", {"test/dice_mean": 0.5, "threshold": 0.5})
    (path,) = write_card(run, tmp_path / "card", 'mine: "all"\n---\nrights: reserved')
    head = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n", 2)[1])
    assert head["license"] == 'mine: "all"\n---\nrights: reserved'
    assert "| `test/dice_mean` | 0.500 |  | mean Dice" in path.read_text(encoding="utf-8")
