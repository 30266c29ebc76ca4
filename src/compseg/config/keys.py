"""What may be set, and what it means: read from the comments of the files in `conf/`, the one place that says so.

`--help` and the page `reference/keys.md` of the documentation (`docs/keys_page.py`) are made of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf

# A key, of a mapping or of a defaults list, and the comment behind its value.
_LINE = re.compile(r"(?P<indent> *)(?:- )?(?:override |optional )?(?P<key>[\w@/.]+):[^#]*(?:# *(?P<comment>.*))?")
_PACKAGE = re.compile(r"# @package (\S+)\n")


class Key(NamedTuple):
    """A key of a configuration.

    Attributes:
        name: Dotted.
        value: As it is written in YAML.
        meaning: In words; empty where no file says so.
    """

    name: str
    value: str
    meaning: str


def comments_in(file: Path) -> dict[str, str]:
    """The comments behind the keys of a file, by dotted key; of a defaults list by `defaults.GROUP`."""
    found, above = {}, list[tuple[int, str]]()
    for line in filter(None, map(_LINE.fullmatch, file.read_text(encoding="utf-8").splitlines())):
        indent = len(line["indent"])
        above = [*(pair for pair in above if pair[0] < indent), (indent, line["key"])]
        if line["comment"]:
            found[".".join(key for _, key in above)] = line["comment"].strip()
    return found


def title_of(file: Path) -> str:
    """What a file says of itself: its first sentence, in comments above its first key."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines += [] if "@package" in line else [line.lstrip("# ")]
    return re.split(r"(?<=[^.][.:])\s", " ".join(lines))[0].rstrip(".:")


def groups_of(file: Path) -> dict[str, str]:
    """The groups that a verb's file chooses from, and what each is for; those that it leaves at `null` too."""
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))["defaults"]
    keys = [str(key).removeprefix("optional ") for entry in entries if isinstance(entry, dict) for key in entry]
    comments = comments_in(file)
    chosen = [key for key in keys if not key.startswith(("override ", "hydra"))]
    return {key.partition("@")[0]: comments.get(f"defaults.{key}", "") for key in chosen}


def options_of(folder: Path, group: str) -> dict[str, Path]:
    """The files of a group, by option."""
    return {file.stem: file for file in sorted((folder / group).glob("*.yaml"))}


def meanings(verb: Path, choices: Mapping[str, Any]) -> dict[str, str]:
    """What the keys of a composed configuration mean, by dotted key.

    Args:
        verb: The verb's file in `conf/`.
        choices: What was chosen of each group (`hydra.runtime.choices`).
    """
    found = {}
    for group, options in choices.items():
        name, _, package = group.partition("@")
        for option in options if isinstance(options, Sequence) and not isinstance(options, str) else [options]:
            found.update(_meanings_in(verb.parent, name, str(option), package))
    return {**found, **{key: said for key, said in comments_in(verb).items() if not key.startswith("defaults.")}}


def _meanings_in(folder: Path, group: str, option: str, package: str = "") -> dict[str, str]:
    """Those of an option, and of the options of its own defaults list."""
    file = folder / group / f"{option}.yaml"
    if not file.is_file():
        return {}
    text, found = file.read_text(encoding="utf-8"), dict[str, str]()
    # An option of the same group, whose package is that of the option that names it.
    for entry in re.findall(r"^  - (\w+)$|^defaults: \[(\w+),", text, re.MULTILINE):
        found |= _meanings_in(folder, group, "".join(entry), package)
    prefix = package_of(file, package or group.replace("/", "."))
    return found | {f"{prefix}.{key}".lstrip("."): said for key, said in comments_in(file).items()}


def package_of(file: Path, default: str) -> str:
    """Where an option's keys go: the dotted node that its file states; empty for the top."""
    stated = _PACKAGE.match(file.read_text(encoding="utf-8"))
    return (stated[1] if stated else default).replace("_global_", "")


def keys_of(cfg: DictConfig, said: Mapping[str, str]) -> list[Key]:
    """Every key of a configuration that holds a value.

    Neither what builds a part (`_target_`) nor what repeats another key (`${channels}`) is among them: no user sets it.

    Args:
        cfg: Composed.
        said: As `meanings` gives it.
    """
    leaves = _leaves(OmegaConf.to_container(cfg), "", said)
    kept = ((name, value) for name, value in leaves if not (isinstance(value, str) and value.startswith("${")))
    return [Key(name, _shown(value), said.get(name, "")) for name, value in kept]


def _leaves(node: Any, key: str, said: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    # A node that is explained as a whole, and none of whose keys is, is a value.
    parts = isinstance(node, dict) and node and (key not in said or any(name.startswith(f"{key}.") for name in said))
    if not parts and not (isinstance(node, dict) and "_target_" in node):
        yield key, node
        return
    for name, child in node.items():
        if not str(name).startswith("_"):
            yield from _leaves(child, f"{key}.{name}" if key else str(name), said)


def _shown(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z$?][^:#]*", value):  # as nearly all; YAML takes its time
        return value
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()
