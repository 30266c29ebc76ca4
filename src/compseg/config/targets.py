"""Every `_target_` in a configuration is looked up and its arguments compared with what the target takes, before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from compseg.config.hints import closest
from compseg.errors import CompsegError

# What to install for the packages that targets may live in without being a dependency.
EXTRAS = {"monai": "monai", "segmentation_models_pytorch": "smp", "tensorboard": "tensorboard"}
_HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(cfg: DictConfig) -> None:
    """Check that every `_target_` exists and takes the arguments it is given.

    Nodes that the program completes with further arguments must say `_partial_: true`, else an argument counts as missing.

    Args:
        cfg: A composed configuration; interpolations and `???` count as given.

    Raises:
        CompsegError: A target cannot be imported, an argument is unknown to it, or a required one is missing.
    """
    for key, node in _targets(OmegaConf.to_container(cfg, resolve=False), ""):
        _check(key, node)


def _targets(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        children = [(str(name), child) for name, child in node.items()]
    elif isinstance(node, list):
        children = [(str(i), child) for i, child in enumerate(node)]
    else:
        return
    for name, child in children:
        yield from _targets(child, f"{key}.{name}" if key else name)


def _check(key: str, node: dict[str, Any]) -> None:
    path = str(node["_target_"])
    parameters = _parameters(_load(key, path))
    if parameters is None:
        return
    given = set(node) - _HYDRA_KEYS
    names = {p.name for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for unknown in sorted(given - names):
            raise CompsegError(f"{key}.{unknown}: {path} takes no '{unknown}'; {closest(unknown, names, 'it takes')}")
    if node.get("_partial_") or node.get("_args_"):
        return
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    for name in required:
        if name not in given:
            raise CompsegError(f"{key}.{name}: {path} needs '{name}'; give {key}.{name}=...")


def _load(key: str, path: str) -> Any:
    try:
        return get_object(path)
    except Exception as error:
        raise CompsegError(f"{key}._target_: {path} cannot be loaded: {_why(path, error)}") from error


def _why(path: str, error: BaseException) -> str:
    package = path.split(".")[0]
    if package in EXTRAS:
        return f"it needs an extra package; pip install 'compseg[{EXTRAS[package]}]'"
    return f"{' '.join(str(error).split())}"


def _parameters(target: Any) -> list[inspect.Parameter] | None:
    """What the target takes, or None for a target in C that does not say."""
    try:
        return list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return None
