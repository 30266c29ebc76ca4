"""From an exception of Hydra, OmegaConf, YAML or the file system to one line that names the culprit and the mend."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from compseg.errors import CompsegError

E = TypeVar("E", bound=BaseException)

_MENDS = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EACCES: "check the permissions",
    errno.ENOENT: "check the path",
}


def closest(word: str, known: Iterable[object], label: str = "known") -> str:
    """`did you mean 'x'?` for the nearest of the known words, whatever the case, else all of them after `label`."""

    def nearness(name: str) -> tuple[float, bool, float]:
        # Of equally near words the one with the same first letter: that one is seldom mistyped.
        return _likeness(word.lower(), name.lower()), word[:1] == name[:1], _likeness(word, name)

    names = sorted(str(name) for name in known)
    best = max(names, key=nearness, default="")
    if nearness(best)[0] >= 0.6:  # the cutoff of difflib.get_close_matches, which minds the case
        return f"did you mean '{best}'?"
    return f"{label}: {', '.join(names) or 'nothing'}"


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def explain(error: BaseException, groups: Iterable[str] = ()) -> str | None:
    """One line for an error that the user can mend.

    Args:
        error: What was raised. What lies behind an error of Hydra's is looked at too.
        groups: Config groups of the verb, which may be set beside the keys of its configuration.

    Returns:
        The line, or None for an error that is not the user's.
    """
    chain = list(_chain(error))
    words = _compseg(chain) or _composition(chain, groups) or _target(chain) or _system(chain) or _other(chain)
    return None if words is None else " ".join(words.split())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and, as long as it is a wrapping of Hydra's, what it wraps."""
    while error is not None:
        yield error
        error = (error.__cause__ or error.__context__) if isinstance(error, HydraException) else None


def _first(chain: Sequence[BaseException], *kinds: type[E]) -> E | None:
    return next((error for error in chain if isinstance(error, kinds)), None)


def _compseg(chain: Sequence[BaseException]) -> str | None:
    error = _first(chain, CompsegError)
    return None if error is None else _said(error)


def _said(error: BaseException) -> str:
    """An error's own words, also where it comes with a traceback out of a worker process of the loader."""
    text = str(error).strip()
    return text.splitlines()[-1].partition(": ")[2] if "Original Traceback" in text else text


def _composition(chain: Sequence[BaseException], groups: Iterable[str]) -> str | None:
    if option := _first(chain, MissingConfigException):
        return _unknown_option(option)
    if syntax := _first(chain, OverrideParseException):
        return f"{syntax.override}: not understood as key=value; a value with brackets, commas or blanks needs quotes"
    if node := _first(chain, OmegaConfBaseException):
        return _place(chain) + _value(node, groups)
    if absent := re.search(r"'(\S+)'\.\s+No match in the defaults list", str(chain[0])):
        return f"{absent[1]}: not among what this verb chooses; +{absent[1]}=... adds it"
    if twice := re.search(r"Multiple values for (\S+)\. To override", str(chain[0])):
        return f"+{twice[1]}: it has a value already; give {twice[1]}=... without the plus sign"
    return None


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return str(error)
    return f"{group}={option}: no such option; {closest(option, error.options or [], 'options')}"


def _place(chain: Sequence[BaseException]) -> str:
    """`in experiment/mine.yaml: ` where Hydra says which file is at fault."""
    found = re.match(r"In '([^']+)':", str(chain[0]))
    return f"in {found[1]}.yaml: " if found else ""


def _value(error: OmegaConfBaseException, groups: Iterable[str]) -> str:
    key = str(error.full_key or error.key)
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: no value; give {key}=..."
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return f"{key}: no such key; {closest(str(error.key), _known_keys(error, groups))}"
    return f"{key}: {str(error).splitlines()[0]}"  # the lines below name OmegaConf's own types


def _known_keys(error: OmegaConfBaseException, groups: Iterable[str]) -> set[str]:
    known = {str(key) for key in error.parent_node} if isinstance(error.parent_node, DictConfig) else set()
    return known if "." in str(error.full_key) else (known | set(groups)) - {"hydra"}


def _target(chain: Sequence[BaseException]) -> str | None:
    error = _first(chain, InstantiationException)
    if error is None:
        return None
    key = re.search(r"full_key: (\S+)", str(error))
    target = re.search(r"target '([^']+)'", str(error))
    culprit = ": ".join(found[1] for found in (key, target) if found)
    cause = chain[-1]
    words = _system(chain) or f"{type(cause).__name__}: {_said(cause)}"
    return f"{culprit}: {words} (COMPSEG_DEBUG=1 shows where)"


def _system(chain: Sequence[BaseException]) -> str | None:
    error = _first(chain, OSError)
    if error is None:
        return None
    culprit = f"{error.filename}: " if error.filename else ""
    mend = _MENDS.get(error.errno or 0)
    return f"{culprit}{error.strerror or _said(error)}" + (f"; {mend}" if mend else "")


def _other(chain: Sequence[BaseException]) -> str | None:
    error = _first(chain, HydraException, YAMLError)
    return None if error is None else str(error)
