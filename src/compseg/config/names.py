"""Values that are names or paths stay the text that the user typed, also where they look like numbers.

Hydra reads `1e5` as 100000.0, `1_000` as 1000 and `nan` as a number; a group, a run or a folder may be called so. Where
an option is to be named, it meets each of them, whole numbers and `null` with a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import fields

from omegaconf import DictConfig, OmegaConf

from compseg.config.schema import SCHEMAS
from compseg.errors import CompsegError

# Names and paths below keys whose nodes are free; at the top level every key of text is one.
BELOW = (
    "data.held_out",
    "data.path",
    "data.source.manifest",
    "data.source.unit",
    "source.manifest",
    "source.unit",
    "source.keys",
    "source.keys.image",
    "source.keys.tissue",
    "source.keys.truth",
    "source.keys.axis",
    "keys.image",
    "keys.tissue",
    "keys.axis",
    "evaluation.rank_by",
    "logger.tensorboard.name",
    "logger.wandb.project",
    "logger.wandb.name",
    "logger.wandb.group",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
# What Hydra makes a number or a truth value of.
_NO_TEXT = r"(?:[+-]?(?:(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:e[+-]?\d+)?|inf|nan)|true|false)"
# The same except plain whole numbers, which keep their text.
_LOST = r"(?!(?:0|[1-9]\d*)\s*(?:$|[,\])}]))" + _NO_TEXT


def is_text(verb: str, key: str) -> bool:
    """Whether a key of a verb is a name or a path."""
    types = {field.name: set(re.findall(r"\w+", str(field.type))) for field in fields(SCHEMAS[verb])}
    return key in BELOW or types.get(key, {""}) <= {"str", "list", "dict", "None"}


def keep_text(verb: str, override: str, groups: Collection[str] = ()) -> str:
    """An argument of the command line, with quotes where Hydra would make a number of a name.

    `null` stays no value; given to one of the `groups`, it chooses none of its options (`~model`). What is quoted
    already, and ranges that Hydra counts through, stay as they are.
    """
    key, equals, value = override.partition("=")
    if not equals or re.search(r"['\"]|^\s*(range|interval)\(", value):
        return override
    of_group = "/" in key or key.lstrip("+").partition("@")[0] in groups
    if of_group and not value.lstrip().startswith("{"):  # else it is a node of the user's own, and no option
        return f"~{key}" if value.strip().lower() == "null" else _quoted(key, value, rf"{_NO_TEXT}|null")
    return _quoted(key, value, _LOST) if is_text(verb, key.lstrip("+")) else override


def _quoted(key: str, value: str, lost: str) -> str:
    """`key=value` with quotes around what is lost: the value, an item of a list or sweep, a value of a dictionary."""
    # The keys of a dictionary cannot be quoted.
    begin = r"(^\s*|[,\[(:]\s*)" if value.lstrip().startswith("{") else r"(^\s*|[,\[(]\s*)"
    return f"{key}=" + re.sub(begin + f"({lost})" + r"(?=\s*(?:$|[,\])}]))", r"\1'\2'", value, flags=re.IGNORECASE)


def check_text(cfg: DictConfig) -> None:
    """Make text of whole numbers that are given to a name, and refuse what a YAML file has lost the text of.

    Raises:
        CompsegError: YAML made a number or a truth value of a name.
    """
    for key in BELOW:
        value = OmegaConf.select(cfg, key, throw_on_missing=False)
        if type(value) is int:
            OmegaConf.update(cfg, key, str(value))
        elif isinstance(value, bool | float):
            raise CompsegError(f"{key}: {value} was read as {type(value).__name__}; quote it, as in {key}: '1e5'")
