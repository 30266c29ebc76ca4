"""Every command in README and docs/ composes, and its targets take what it gives them: a renamed key shows up here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from compseg.config import check_targets, compose
from compseg.training import refuse_unread

ROOT = Path(__file__).parents[2]
# The lab log tells of commands as they were then.
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/research/lab-log.md"})]
COMMANDS = [
    pytest.param(found["verb"], found["arguments"], id=f"{page.relative_to(ROOT)}: {found['verb']} {place}")
    for page in PAGES
    for place, found in enumerate(
        re.finditer(
            r"^(?:srun .*|torchrun .*-m |python -m )compseg\.(?P<verb>\w+)(?P<arguments>[^#\n]*)",
            page.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
]


def first(override: Override) -> str:
    """The override of a sweep's first job."""
    line = override.input_line
    assert line is not None
    if override.is_choice_sweep():
        return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
    return line


def test_the_documents_hold_commands():
    assert len({command.values[0] for command in COMMANDS}) > 5
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("verb", "arguments"), COMMANDS)
def test_command_composes(verb, arguments):
    words = [word for word in shlex.split(arguments) if word != "-m"]
    if verb == "sweep_report":  # its folder comes without a key
        words = [f"dir={words[0]}", *words[1:]]
    parsed = OverridesParser.create().parse_overrides([word for word in words if "interval(" not in word])
    overrides = [first(override) for override in parsed]
    cfg = compose(verb, overrides)
    check_targets(cfg)
    if verb == "train":
        refuse_unread(cfg, overrides)
