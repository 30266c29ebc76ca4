"""The page of `--help`: what a verb does, an example, its groups, and its keys with their meaning."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill, shorten

from omegaconf import DictConfig, OmegaConf

from compseg.config.keys import Key, groups_of, keys_of, meanings, options_of, title_of
from compseg.errors import CompsegError, closest

WIDTH = 100
VALUE = 22  # characters of a value that are shown
END = """\
--help NODE    every key of a node, and every option of a group, for example --help {node}
--cfg job      show the configuration and do nothing
-m             one run for every combination of comma-separated values
COMPSEG_DEBUG=1 in the environment shows where an error came from."""


def asked(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What the words beside `--help` ask for: overrides, and nodes to unfold."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    flags, rest = parser.parse_known_args(arguments)
    words = [word for word in rest if not word.startswith("-")]  # flags such as -m do not change the page
    overrides = [word for word in words if "=" in word or word.startswith("~")]
    if flags.config_dir:
        overrides.append(f"hydra.searchpath=['file://{Path(flags.config_dir).resolve()}']")
    return overrides, [word for word in words if word not in overrides]


def page(verb: Path, doc: str, cfg: DictConfig, nodes: Sequence[str]) -> str:
    """The page.

    Args:
        verb: The verb's file in `conf/`.
        doc: The docstring of its function: what it does, and an example.
        cfg: Composed, with Hydra's own part.
        nodes: That are asked for; empty: the whole.

    Raises:
        CompsegError: There is no such node.
    """
    choices = cfg.hydra.runtime.choices
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    keys, groups = keys_of(own, meanings(verb, choices)), groups_of(verb)
    if nodes:
        return "\n\n".join(_node(verb.parent, node, keys, groups, choices) for node in nodes)
    folded = [key for key in keys if key.name.partition(".")[0] in groups or key.name.startswith("regularisers")]
    lines = re.split(r"\n\n(?:Args|Returns|Raises):", doc)[0].splitlines()
    parts = ["\n".join(fill(line, WIDTH) for line in lines)]
    if groups:
        rows = [Key(group, _choice(choices, group), meaning) for group, meaning in groups.items()]
        parts += ["== Groups: give group=option ==", _table(rows)]
    if plain := [key for key in keys if key not in folded]:
        parts += ["== Keys: give key=value ==", _table(plain)]
    if folded:
        parts += ["== Keys of the groups: --help NODE says what each means ==", _folded(folded)]
    return "\n\n".join([*parts, END.format(node=next(iter(groups), plain[0].name if plain else "KEY"))])


def _node(folder: Path, node: str, keys: Sequence[Key], groups: Mapping[str, str], choices: DictConfig) -> str:
    """Every option of a group, and every key of a node."""
    below = [key for key in keys if f"{key.name}.".startswith(f"{node}.")]
    parts = []
    if node in groups:
        rows = [Key(option, "", title_of(file)) for option, file in options_of(folder, node).items()]
        now = f"now {_choice(choices, node)}"
        parts += [f"== {node}=... ({now}): {groups[node]} ==", _table(rows)]
    if below:
        parts += [f"== Keys of {node} ==", _table(below)]
    if not parts:
        known = {*groups, *(key.name for key in keys), *(key.name.rpartition(".")[0] for key in keys)} - {""}
        raise CompsegError(f"{node}: no such node; {closest(node, known, 'nodes')}")
    return "\n\n".join(parts)


def _choice(choices: DictConfig, group: str) -> str:
    found = next((option for name, option in choices.items() if str(name).partition("@")[0] == group), None)
    return "-" if found in (None, "null") else str(found)


def _table(rows: Sequence[Key]) -> str:
    """Name, value and meaning, in columns."""
    name = max(len(row.name) for row in rows) + 2
    value = min(max(len(row.value) for row in rows), VALUE) + 2 * any(row.value for row in rows)
    return "\n".join(_row(row, name, value) for row in rows)


def _row(row: Key, name: int, value: int) -> str:
    shown = row.value if len(row.value) <= VALUE else f"{row.value[: VALUE - 3]}..."
    start = f"{row.name:{name}}{shown:{value}}"
    return fill(row.meaning, WIDTH, initial_indent=start, subsequent_indent=" " * len(start)) or start.rstrip()


def _folded(keys: Iterable[Key]) -> str:
    """The names of the keys of each node, a node a line."""
    nodes: dict[str, list[str]] = {}
    for key in keys:
        node, _, rest = key.name.partition(".")
        nodes.setdefault(node, []).append(rest or key.value)
    width = max(map(len, nodes)) + 2
    return "\n".join(
        fill(
            f"{node:{width}}{shorten(', '.join(names), 3 * WIDTH, placeholder=' ...')}",
            WIDTH,
            subsequent_indent=" " * width,
        )
        for node, names in nodes.items()
    )
