"""The commands of docs/how-to/export.md do what the page promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from running import run_here

PAGE = Path(__file__).parents[2] / "docs/how-to/export.md"
COMMANDS = re.findall(r"^python -m compseg\.export (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
# A graph takes a quarter of a minute; test_model_exports.py has the everyday one.
PARAMETERS = [
    pytest.param(command, marks=[pytest.mark.slow] if re.search("format=(torch|onnx)", command) else [])
    for command in COMMANDS
]


@pytest.mark.parametrize("arguments", PARAMETERS)
def test_a_documented_command_runs(arguments, trained, tmp_path, monkeypatch):
    if "format=onnx" in arguments:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed; it is in compseg[export]")
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    Path("outputs/RUN").symlink_to(trained.run)
    words = shlex.split(arguments)
    assert run_here("export", *words) == 0
    (out,) = (word.removeprefix("out=") for word in words if word.startswith("out="))
    assert any(Path(out).iterdir())
