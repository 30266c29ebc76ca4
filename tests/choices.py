"""The heads and objectives in conf/: those of their own group, and those that a method carries itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from compseg.training.attempts import fallback_of

CONF = Path(__file__).parents[1] / "conf"


def names(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def option(group: str, name: str) -> dict[str, Any]:
    """The node that an option of a group stands for."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return {key: value for key, value in node.items() if key != "defaults"}


def nodes_of(part: str) -> dict[str, dict[str, Any]]:
    """Each distinct `head` or `objective` once, by its place: `part/NAME`, `method/NAME`, `fallback/NAME`."""
    found = {f"{part}/{name}": option(part, name) for name in names(part)}
    for name in names("method"):
        cfg = OmegaConf.load(CONF / "method" / f"{name}.yaml")
        fallback = fallback_of(cfg) if cfg.method.get("fallback") else cfg
        for place, one in (("method", cfg), ("fallback", fallback)):
            node = one.get(part)
            if node is not None and (plain := OmegaConf.to_container(node, resolve=True)) not in found.values():
                found[f"{place}/{name}"] = plain
    return found
