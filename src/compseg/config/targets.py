"""Before anything runs, every `_target_` is looked up, and arguments and flags are compared with what is taken."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.config.hints import KINDS, RENAMED
from compseg.config.literals import literal
from compseg.config.schema import flags_of
from compseg.errors import CompsegError, closest

# Packages that come with an extra, and the extra that brings them.
EXTRAS = {"monai": "monai", "einops": "monai", "segmentation_models_pytorch": "smp", "tensorboard": "tensorboard"}

# An annotation that consists only of these words takes numbers, not text.
_NUMBERS = {"int", "float", "bool"}
_BESIDE_NUMBERS = {"class", "None", "NoneType", "Optional", "Union", "typing", "list", "tuple"}
_BESIDE_NUMBERS |= {"Sequence", "torch", "Tensor"}

_HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(cfg: DictConfig) -> None:
    """Check that every `_target_` exists and takes the arguments it is given, and that numbers and flags are such.

    A node that the program completes with further arguments says `_partial_: true`; without it they count as missing.

    Args:
        cfg: A composed configuration. Interpolations, `???` and `auto`, which the program fills in, count as given.

    Raises:
        CompsegError: A target cannot be imported, an argument is unknown to it, mistyped or missing.
    """
    _check_flags(cfg)
    for key, node in _target_nodes(OmegaConf.to_container(cfg, resolve=False), ""):
        path = str(node["_target_"])
        target = _load(key, path)
        given = {str(name) for name in node} - _HYDRA_KEYS
        parameters = _parameters(target)
        _check_known(key, path, given, parameters)
        _check_numbers(key, node, parameters)
        if not (node.get("_partial_") or node.get("_args_")):
            _check_complete(key, path, given, target)


def _check_flags(cfg: DictConfig) -> None:
    """Refuse what is neither true nor false for a key of the verb's own that is one of the two."""
    schema = OmegaConf.get_type(cfg)
    for key, nullable in flags_of(schema) if is_dataclass(schema) else ():
        value = OmegaConf.select(cfg, key, default=False)  # which `???` is here: it is asked for later
        if not isinstance(value, bool) and not (nullable and value is None):
            raise CompsegError(f"{key}: expected {_in_words({'bool', *['None'] * nullable})}, got {_shown(value)}")


def _target_nodes(node: Any, key: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Every node with a `_target_` and its dotted key, outer ones first."""
    if isinstance(node, dict) and "_target_" in node:
        yield key, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _target_nodes(child, f"{key}.{name}" if key else str(name))


def _check_known(key: str, path: str, given: set[str], parameters: list[inspect.Parameter]) -> None:
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for unknown in sorted(given - names):
        new = RENAMED.get(f"{key}.{unknown}")
        hint = f"now called {new}" if new else closest(unknown, names, "it takes")
        raise CompsegError(f"{key}.{unknown}: {path} takes no '{unknown}'; {hint}")


def _check_complete(key: str, path: str, given: set[str], target: Any) -> None:
    for p in _signature(target):
        if p.name not in given and p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise CompsegError(f"{key}: {path} needs '{p.name}'; give {key}.{p.name}=...")


def _check_numbers(key: str, node: dict[Any, Any], parameters: list[inspect.Parameter]) -> None:
    """Refuse a value that cannot be meant for an annotation of numbers; other annotations are not judged."""
    # Annotations may be text that cannot be evaluated here, so their words are looked at, not the types.
    for p in parameters:
        value, words = node.get(p.name, p.default), set(re.findall(r"\w+", str(p.annotation)))
        filled_in = isinstance(value, str) and (value in ("???", "auto") or "${" in value)
        if value is p.default or filled_in or not words & _NUMBERS or words - _NUMBERS - _BESIDE_NUMBERS:
            continue
        if value is None:
            fits = bool(words & {"None", "Optional"})
        elif isinstance(value, bool) or (not words & {"int", "float"} and not isinstance(value, list)):
            fits = isinstance(value, bool) and "bool" in words
        elif isinstance(value, float):  # 1e3 is written for 1000
            fits = "float" in words or value.is_integer()
        else:
            fits = not isinstance(value, str)
        if not fits:
            raise CompsegError(f"{key}.{p.name}: expected {_in_words(words)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """As YAML has it."""
    return literal(value) if value is None or isinstance(value, bool) else repr(value)


def _in_words(types: set[str]) -> str:
    """What the words of an annotation take, without names of types."""
    kinds = [KINDS[kind[:3]] for kind in ("int", "float", "bool") if kind in types]
    lists = ["a list of them"] * bool(types & {"list", "tuple", "Sequence", "Tensor"})
    # A whole number is a number.
    kinds = kinds[1:] if {"int", "float"} <= types else kinds
    return " or ".join([*kinds, *lists, *["null"] * bool(types & {"None", "NoneType", "Optional"})])


def _parameters(target: Any) -> list[inspect.Parameter]:
    """What a target takes. A class that passes `**kwargs` on also takes what its base takes."""
    parameters = _signature(target)
    # Neither the class itself, whose signature is there already, nor object, whose signature tells nothing.
    for base in inspect.getmro(target)[1:-1] if inspect.isclass(target) else ():
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
        if "__init__" in vars(base):
            parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD] + _signature(base)
    return parameters


def _signature(target: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except ValueError:  # written in C, without a signature: accept anything
        return [inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)]


def _load(key: str, path: str) -> Any:
    """The class or function of a dotted name. Hydra's get_object would log three lines before it raises."""
    package, *names = path.split(".")
    try:
        target = import_module(package)
        for name in names:
            target = _member(target, name)
    except Exception as error:  # an import runs code of others
        missing = str(error.name).split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        extra = EXTRAS.get(missing)
        why = f"{missing} is not installed; pip install 'compseg[{extra}]'" if extra else str(error)
        raise CompsegError(f"{key}._target_: cannot load {path}: {why}") from error
    if not callable(target):
        raise CompsegError(f"{key}._target_: {path} is a {type(target).__name__}, not a class or a function")
    return target


def _member(owner: Any, name: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    # A package does not know its modules before they are imported.
    modules = {module.name for module in pkgutil.iter_modules(getattr(owner, "__path__", None) or [])}
    if name in modules:
        return import_module(f"{owner.__name__}.{name}")
    public = getattr(owner, "__all__", None) or [word for word in dir(owner) if not word.startswith("_")]
    raise ImportError(f"{owner.__name__} has no '{name}'; {closest(name, {*public, *modules}, 'it has')}")
