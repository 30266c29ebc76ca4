"""The commands of docs/how-to/export.md do what the page promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from running import run_here

PAGE = Path(__file__).parents[2] / "docs/how-to/export.md"
COMMANDS = re.findall(r"^python -m compseg\.export (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_documented_command_runs(arguments, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    Path("outputs/RUN").symlink_to(trained.run)
    words = shlex.split(arguments)
    assert run_here("export", *words) == 0
    (out,) = (word.removeprefix("out=") for word in words if word.startswith("out="))
    assert any(Path(out).iterdir())
