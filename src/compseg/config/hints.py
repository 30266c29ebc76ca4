"""From an exception of Hydra, OmegaConf, YAML or the file system to one line that names the culprit and the mend."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from compseg.errors import CompsegError


def closest(word: str, known: Iterable[object], plain: str = "known") -> str:
    """`did you mean 'x'?` for the nearest of the known words, else all of them."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"{plain}: {', '.join(names)}" if names else "nothing may be set here"


def explain(error: BaseException, conf: Path) -> str | None:
    """One line for an error that the user can mend.

    Args:
        error: What was raised; what caused it is looked at too.
        conf: The folder of configuration files, whose folders are the groups that may be set.

    Returns:
        The line, or None for an error that is not the user's.
    """
    chain = list(_chain(error))
    for kind, words in (
        (CompsegError, _own),
        (MissingConfigException, _missing_config),
        ((ConfigKeyError, ConfigAttributeError), lambda e: _unknown_key(e, conf, _place(chain))),
        (MissingMandatoryValue, _missing_value),
        (OverrideParseException, _unparsed),
        (InstantiationException, lambda e: _failed_target(chain, e)),
        ((OmegaConfBaseException, HydraException, YAMLError), lambda e: _place(chain) + _flat(e)),
        (OSError, _system),
    ):
        for found in chain:
            if isinstance(found, kind):
                return _one_line(words(found))
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _flat(error: BaseException) -> str:
    """The words of an error without OmegaConf's lines about its own types."""
    lines = [line for line in str(error).splitlines() if not re.match(r"\s*(object_type|reference_type)=", line)]
    return _one_line(" ".join(lines))


def _own(error: BaseException) -> str:
    return str(error)


def _missing_config(error: MissingConfigException) -> str:
    wanted = error.missing_cfg_file or ""
    group, _, option = wanted.rpartition("/")
    if not group:
        return _flat(error)
    return f"{group}={option}: no such option; {closest(option, error.options or [], 'options')}"


def _place(chain: list[BaseException]) -> str:
    """`in experiment/mine.yaml: ` where Hydra says which file is at fault."""
    for error in chain:
        found = re.match(r"In '([^']+)':", str(error))
        if found:
            return f"in {found[1]}.yaml: "
    return ""


def _unknown_key(error: OmegaConfBaseException, conf: Path, place: str) -> str:
    parent = error.parent_node
    known = set(parent) if isinstance(parent, DictConfig) else set()
    full_key = str(error.full_key or error.key)
    if "." not in full_key and conf.is_dir():
        known |= {folder.name for folder in conf.iterdir() if folder.is_dir()} - {"hydra"}
    return f"{place}{full_key}: no such key; {closest(str(error.key), known)}"


def _missing_value(error: OmegaConfBaseException) -> str:
    key = error.full_key or error.key
    return f"{key}: no value; give {key}=..."


def _unparsed(error: OverrideParseException) -> str:
    return f"{error.override}: cannot be read as key=value; quote values that hold commas, brackets or spaces: 'key=\"a,b\"'"


def _failed_target(chain: list[BaseException], error: InstantiationException) -> str:
    found = re.search(r"full_key: (\S+)", str(error))
    target = re.search(r"target '([^']+)'", str(error))
    cause = next((e for e in reversed(chain) if not isinstance(e, HydraException)), error)
    words = _flat(cause) if cause is not error else _flat(error)
    culprit = ": ".join(m[1] for m in (found, target) if m)
    return f"{culprit}: {type(cause).__name__}: {words} (COMPSEG_DEBUG=1 shows where)"


def _system(error: OSError) -> str:
    culprit = f"{error.filename}: " if error.filename else ""
    mend = {
        errno.ENOSPC: "; free some space or write elsewhere",
        errno.EDQUOT: "; free some space or write elsewhere",
        errno.EACCES: "; check the permissions",
        errno.ENOENT: "; check the path",
    }.get(error.errno or 0, "")
    return f"{culprit}{error.strerror or error}{mend}"
