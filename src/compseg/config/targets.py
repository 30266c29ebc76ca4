"""Every `_target_` is looked up, and its arguments compared with what the target takes, before anything runs."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.config.hints import closest
from compseg.errors import CompsegError

# Packages that come with an extra, and the extra that brings them.
EXTRAS = {"monai": "monai", "einops": "monai", "segmentation_models_pytorch": "smp", "tensorboard": "tensorboard"}

# An annotation of these words alone takes numbers, and no text.
_NUMBERS = {"int", "float", "bool"}
_BESIDE_NUMBERS = {
    "class",
    "None",
    "NoneType",
    "Optional",
    "Union",
    "typing",
    "list",
    "tuple",
    "Sequence",
    "torch",
    "Tensor",
}

_HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(cfg: DictConfig) -> None:
    """Check that every `_target_` exists and takes the arguments it is given, and numbers where it wants numbers.

    A node that the program completes with further arguments says `_partial_: true`, else those count as missing.

    Args:
        cfg: A composed configuration; interpolations and `???` count as given.

    Raises:
        CompsegError: A target cannot be imported, an argument is unknown to it, mistyped or missing.
    """
    for key, node in _target_nodes(OmegaConf.to_container(cfg, resolve=False), ""):
        path = str(node["_target_"])
        target = _load(key, path)
        given = {str(name) for name in node} - _HYDRA_KEYS
        parameters = _parameters(target)
        _refuse_unknown(key, path, given, parameters)
        _refuse_mistyped(key, node, parameters)
        if not (node.get("_partial_") or node.get("_args_")):
            _refuse_missing(key, path, given, target)


def _target_nodes(node: Any, key: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    if isinstance(node, dict) and "_target_" in node:
        yield key, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _target_nodes(child, f"{key}.{name}" if key else str(name))


def _refuse_unknown(key: str, path: str, given: set[str], parameters: list[inspect.Parameter]) -> None:
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for unknown in sorted(given - names):
        raise CompsegError(f"{key}.{unknown}: {path} takes no '{unknown}'; {closest(unknown, names, 'it takes')}")


def _refuse_missing(key: str, path: str, given: set[str], target: Any) -> None:
    for p in _signature(target):
        if p.name not in given and p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise CompsegError(f"{key}: {path} needs '{p.name}'; give {key}.{p.name}=...")


def _refuse_mistyped(key: str, node: dict[Any, Any], parameters: list[inspect.Parameter]) -> None:
    for p in parameters:
        value = node.get(p.name, p.default)
        if value is p.default or (isinstance(value, str) and (value in ("???", "auto") or "${" in value)):
            continue
        if not _fits(value, set(re.findall(r"\w+", str(p.annotation)))):
            expected = p.annotation.__name__ if inspect.isclass(p.annotation) else p.annotation
            raise CompsegError(f"{key}.{p.name}: expected {expected}, got {'null' if value is None else repr(value)}")


def _fits(value: Any, words: set[str]) -> bool:
    """Whether a value may be meant for an annotation of these words; only plain numbers are judged."""
    if not words & _NUMBERS or words - _NUMBERS - _BESIDE_NUMBERS:
        return True
    if value is None:
        return bool(words & {"None", "Optional"})
    if isinstance(value, float):
        return "float" in words or value.is_integer()
    return not isinstance(value, str)


def _parameters(target: Any) -> list[inspect.Parameter]:
    """What a target takes. A class that passes `**kwargs` on takes what its base takes."""
    parameters = _signature(target)
    for base in inspect.getmro(target)[1:-1] if inspect.isclass(target) else ():
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
        if "__init__" in vars(base):
            parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD] + _signature(base)
    return parameters


def _signature(target: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except ValueError:  # written in C and silent: anything may go
        return [inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)]


def _load(key: str, path: str) -> Any:
    # Not hydra.utils.get_object: it logs a failure in three lines before it raises.
    package, *names = path.split(".")
    try:
        target = import_module(package)
        for name in names:
            target = _member(target, name)
    except Exception as error:  # an import runs code of others
        raise CompsegError(f"{key}._target_: cannot load {path}: {_why(error)}") from error
    if not callable(target):
        raise CompsegError(f"{key}._target_: {path} is a {type(target).__name__}, not a class or a function")
    return target


def _member(owner: Any, name: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    modules = {module.name for module in pkgutil.iter_modules(getattr(owner, "__path__", None) or [])}
    if name in modules:
        return import_module(f"{owner.__name__}.{name}")
    public = getattr(owner, "__all__", None) or [word for word in dir(owner) if not word.startswith("_")]
    raise ImportError(f"{owner.__name__} has no '{name}'; {closest(name, {*public, *modules}, 'it has')}")


def _why(error: Exception) -> str:
    package = str(error.name).split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in EXTRAS:
        return f"{package} is not installed; pip install 'compseg[{EXTRAS[package]}]'"
    return str(error)
