"""From an exception of Hydra, OmegaConf, YAML or the file system to one line that names the culprit and the fix."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from compseg.errors import ALIKE, CompsegError, cause, closest, is_out_of_memory, likeness_of
from compseg.file_names import printable

E = TypeVar("E", bound=BaseException)

# What a key or `group=option` was called, and what it is called now. Keys below an old key move along with it.
RENAMED = {
    "teacher": "pseudo_labels",
    "teacher.teaches": "pseudo_labels.supervises",
    "teacher.reach": "pseudo_labels.neighbourhood",
    "otherwise": "method.fallback",
    "otherwise.teacher": "method.fallback.pseudo_labels",
    "otherwise.starts": "method.fallback.n_init",
    "floor": "method.baseline",
    "localiser": "method.cam",
    "maps": "method.maps",
    "depth": "model.depth",
    "starts": "n_init",
    "threshold": "evaluation.threshold",
    "evaluate": "evaluation.split (test | val | none)",
    "test": "evaluation.split (test | val | none)",
    "report": "evaluation.report",
    "rank_by": "evaluation.rank_by",
    "regularisers.turn_consistency": "regularisers.rotation_consistency",
    "regulariser=turn_consistency": "regulariser=rotation_consistency",
    "augmentation=turns": "augmentation=flip_rotate90",
    "augmentation=mirror": "augmentation=horizontal_flip",
    "augmentation=turns_and_jitter": "augmentation=flip_rotate90_jitter",
    "objective=taught": "objective=pseudo_labels",
    "objective=ceiling": "objective=maximum",
    "ceiling": "upper_bound",  # this and the next two: of the verb compare
    "floors": "baselines",
    "figures": "metrics",
}
# What other programs call a key, and no likeness of words leads to.
ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "gpus": "trainer.devices",
    "num_workers": "data.workers",
    "cohort": "data.path",
    "images": "input",
    "image": "input",
}

# Kinds of values, by the first letters of their Python types.
KINDS = {"int": "a whole number", "flo": "a number", "boo": "true or false", "str": "text"}
_FIXES = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
    errno.EROFS: "write elsewhere",
    errno.EINVAL: "its file system or device refuses this; use another",
    errno.EIO: "its disk may be failing; use another",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or write elsewhere",
    errno.ENAMETOOLONG: "shorten the path",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096)",
    errno.ENFILE: "end other programs, or raise the limit of the system",
    errno.ENOMEM: "end other programs, or use a machine with more memory",
}
# What to lower where memory runs out, by verb.
_SMALLER = {
    "train": "lower data.batch_size, or give data.crop or data.cache=none",
    "predict": "give a smaller tile, for example tile=256",
    "evaluate": "give device=cpu",
    "compare": "give fewer jobs at once",
}


def renamed(key: str, known: Collection[str] = ()) -> str | None:
    """What an old key is called now.

    Args:
        key: A dotted key such as `teacher.reach`, or an option such as `augmentation=turns`.
        known: Top-level keys and groups of the verb. A new name that begins with none of them is not suggested, because
            the verbs have different keys; one below `evaluation` is also known to a verb that has it at its top level.
            Empty: anything may be suggested.

    Returns:
        The new key or option, or None if the table has none that the verb knows.
    """
    parts = key.split(".")
    for length in range(len(parts), 0, -1):  # the longest entry first: teacher.reach before teacher
        if new := RENAMED.get(".".join(parts[:length])):
            new = ".".join([new, *parts[length:]])
            names = (new, new.removeprefix("evaluation."))
            return next((name for name in names if not known or re.split(r"[.= ]", name)[0] in known), None)
    return None


def explain(error: BaseException, groups: Collection[str] = (), verb: str = "") -> str | None:
    """One line for an error that the user can fix.

    Args:
        error: What was raised. For an error of Hydra's, its causes are looked at too.
        groups: Config groups of the verb, which may be set as well as the keys of its configuration.
        verb: Its name.

    Returns:
        The line, or None for an error that is not the user's.
    """
    chain = [error]
    while isinstance(chain[-1], HydraException) and (cause := chain[-1].__cause__ or chain[-1].__context__):
        chain.append(cause)
    if own := _first(chain, CompsegError):
        line: str | None = _message(own)
    else:
        line = _memory(chain, verb) or _composition(chain, groups) or _target(chain) or _system(chain) or _other(chain)
    return None if line is None else printable(" ".join(line.split()))


def _first(chain: Sequence[BaseException], *kinds: type[E]) -> E | None:
    return next((error for error in chain if isinstance(error, kinds)), None)


def _message(error: BaseException) -> str:
    """An error's message, also where a worker process of the loader wrapped it in a traceback."""
    text = str(error).strip()
    return text.splitlines()[-1].partition(": ")[2] if "Original Traceback" in text else text


def _memory(chain: Sequence[BaseException], verb: str) -> str | None:
    """A host or a device without memory left."""
    error = next((error for error in chain if is_out_of_memory(error)), None)
    if error is None:
        return None
    return f"out of memory ({cause(error)}); {_SMALLER.get(verb, 'end other programs, or use a machine with more')}"


def _composition(chain: Sequence[BaseException], groups: Collection[str]) -> str | None:
    """A configuration that cannot be composed."""
    # Hydra tells most of these cases apart in its English alone. Its version is pinned, and tests/config/test_hints.py
    # has an example of each sentence.
    words = str(chain[0])
    node = _first(chain, OmegaConfBaseException)
    if syntax := _first(chain, OverrideParseException):
        return f"{syntax.override}: not understood as key=value; a value with brackets, commas or blanks needs quotes"
    if (option := _first(chain, MissingConfigException)) and "/" in (option.missing_cfg_file or ""):
        return _unknown_option(option)
    if node:
        file = re.match(r"In '([^']+)':", words)  # for example the experiment that holds the key
        return (f"in {file[1]}.yaml: " if file else "") + _unknown_key(words, node, groups)
    if absent := re.search(r"'(\S+)'\.\s+No match in the defaults list", words):
        new = renamed(absent[1], groups)
        return f"{absent[1]}: " + (
            f"now called {new}" if new else f"not among what this verb chooses; +{absent[1]}=... adds it"
        )
    if elsewhere := re.search(r"override '(\S+)'\.\s+Did you mean to override (\S+)\?", words):
        return f"{elsewhere[1]}: did you mean '{elsewhere[2]}'?"
    if twice := re.search(r"Multiple values for (\S+)\. To override", words):
        return f"+{twice[1]}: it has a value already; give {twice[1]}=... without the plus sign"
    return None


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if new := renamed(f"{group}={option}"):
        return f"{group}={option}: now called {new}"
    return f"{group}={option}: no such option; {closest(option, error.options or _options(error, group), 'options')}"


def _options(error: MissingConfigException, group: str) -> list[str]:
    """What may be chosen of a group of which several options were; Hydra says then no more than where it looked."""
    folders = re.findall(r"path=file://(.+)", str(error))
    return [file.stem for folder in folders for file in (Path(folder) / group).glob("*.yaml")]


def _unknown_key(words: str, error: OmegaConfBaseException, groups: Collection[str]) -> str:
    key = str(error.full_key or error.key)
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: no value; give {key}=..."
    if not isinstance(error, ConfigKeyError | ConfigAttributeError):
        return f"{key}: {_of_kind(str(error).splitlines()[0])}"  # the lines below name OmegaConf's own types
    known = {str(name) for name in error.parent_node} if isinstance(error.parent_node, DictConfig) else set()
    if "." not in key:  # at the top level a group is as good as a key
        known = (known | set(groups)) - {"hydra"}
    # OmegaConf names the first part that is missing, Hydra all of what was asked for.
    asked = re.search(r"Could not override '([^']+)'", words)
    asked_key = asked[1] if asked else key
    if new := renamed(asked_key, known if "." not in key else ()):
        return f"{asked_key}: now called {new}"
    owner = key.rpartition(".")[0]
    if owner and not known:
        return f"{asked_key}: does nothing here: {owner} is null; choose what sets it, or leave the key out"
    if (meant := ELSEWHERE.get(asked_key, "")) and meant.partition(".")[0] in known:
        return f"{asked_key}: no such key; did you mean '{meant}'?"
    if key == asked_key and (near := _near(key, error.parent_node, known)):
        return f"{key}: no such key at the top; did you mean {near}?"
    return f"{key}: no such key; {closest(error.key, known)}"


def _of_kind(words: str) -> str:
    """OmegaConf's line on a value of the wrong kind, without names of types."""
    found = re.match(r"(?:Value|Incompatible value) '(.*?)'.*?\b(Integer|Float|Boolean|int|float|bool|str)\b'?$", words)
    if found is None:
        return "expected a value, got null" if "is not Optional" in words else words
    return f"expected {KINDS[found[2].lower()[:3]]}, got {'null' if found[1] == 'None' else repr(found[1])}"


def _near(word: str, node: DictConfig, known: Collection[str]) -> str:
    """The nested keys whose last part is a word, or is more like it than any key of the top level."""
    nested = [key for key in _below(OmegaConf.to_container(node)) if "." in key and not key.startswith("hydra.")]
    likeness = {key: likeness_of(word, key.rpartition(".")[2]) for key in nested}
    best = max(likeness.values(), default=0.0)
    # One of the top level, as `model` for `modle`, is rather meant than one that is a little nearer, as `mode`.
    if best < ALIKE or (best <= 0.1 + max(likeness_of(word, name) for name in known) and best < 1):
        return ""
    return " or ".join([f"'{key}'" for key in nested if likeness[key] == best][:3])


def _below(node: object, key: str = "") -> Iterator[str]:
    yield key
    for name, child in node.items() if isinstance(node, dict) else ():
        yield from _below(child, f"{key}.{name}".lstrip("."))


def _target(chain: Sequence[BaseException]) -> str | None:
    """A target that raised something when it was called."""
    error = _first(chain, InstantiationException)
    if error is None:
        return None
    found = (re.search(pattern, str(error)) for pattern in (r"full_key: (\S+)", r"target '([^']+)'"))
    culprit = ": ".join(match[1] for match in found if match)
    cause = chain[-1]
    words = _system(chain) or f"{type(cause).__name__}: {_message(cause)}"
    return f"{culprit}: {words} (COMPSEG_DEBUG=1 shows where)"


def _system(chain: Sequence[BaseException]) -> str | None:
    """A file that cannot be read or written."""
    error = _first(chain, OSError)
    if error is None:
        return None
    culprit = f"{error.filename}: " if error.filename else ""
    fix = _FIXES.get(error.errno or 0)
    return f"{culprit}{error.strerror or _message(error)}" + (f"; {fix}" if fix else "")


def _other(chain: Sequence[BaseException]) -> str | None:
    error = _first(chain, HydraException, YAMLError)
    return None if error is None else str(error)
