"""Values of Python as words of Hydra's command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compseg.errors import require


def literal(value: Any) -> str:
    """A plain value, or a path, as Hydra's command line takes it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{literal(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | Path):  # names stay bare: options of a group may not be quoted
        return str(value) if re.fullmatch(r"[A-Za-z_]\w*", str(value)) else quoted(value)
    return repr(value)


def quoted(value: object) -> str:
    """A value as Hydra's command line takes it, with any characters in it.

    Raises:
        CompsegError: If it holds `${`. A group of a stranger's cohort could ask for a variable of the environment.
    """
    require("${" not in str(value), f"{value}: a configuration would replace what ${{ begins; rename it")
    # To Hydra a backslash is an escape only before a quote.
    text = re.sub(r'(\\*)(")', r"\1\1\\\2", str(value))
    return '"' + re.sub(r"(\\+)$", r"\1\1", text) + '"'
