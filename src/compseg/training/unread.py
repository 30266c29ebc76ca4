"""Keys that a user gives and that nothing in the composed run reads: named before anything is trained.

What reads what comes from the parts: an objective declares the fields of a `HeadOutput` that it `reads`, a head what
its arguments act on, and any class in a `_target_` may have a static method `unread`, which says which of its arguments
do nothing beside the others. Here is only what the parts cannot know, because it lies between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from compseg.comparative import Objective, Sum
from compseg.errors import CompsegError
from compseg.training.build import build_objective

ANYTHING = object()
# Groups whose node in the configuration has another name.
GROUPS = {"regulariser": "regularisers", "source@data.source": "data.source"}


class Unread(NamedTuple):
    """A key that nothing reads, with all keys below it.

    Attributes:
        key: Dotted.
        why: As it goes on after "does nothing here: ".
        fix: What to change.
        unless: A value that is as good as none.
    """

    key: str
    why: str
    fix: str
    unless: object = ANYTHING


def refuse_unread(cfg: DictConfig, overrides: Iterable[str], hydra: HydraConf | None = None) -> None:
    """Refuse the first value that a user gives and that can have no effect in a run.

    Args:
        cfg: `conf/train.yaml`, composed with the overrides and checked.
        overrides: As on the command line.
        hydra: What Hydra knows of the composition; None: there is no experiment file to look at.

    Raises:
        CompsegError: A value does nothing.
    """
    refuse(overrides, list(unread(cfg)), hydra)


def refuse(overrides: Iterable[str], found: Sequence[Unread], hydra: HydraConf | None = None) -> None:
    """Refuse the first value, of the command line and then of an experiment file, that is among what is not read.

    Raises:
        CompsegError: There is one.
    """
    for override in overrides:
        if line := problem_with(override, found):
            raise CompsegError(line)
    for file, key, value in in_experiment(hydra, str(hydra.runtime.choices.get("experiment"))) if hydra else ():
        if line := _problem(f"{key}={value}", key, value, found):
            raise CompsegError(f"in {file}: {line}")


def in_experiment(hydra: HydraConf, name: str) -> Iterator[tuple[str, str, object]]:
    """File, key and value of all that an experiment sets, unless it is one that comes with compseg.

    Args:
        hydra: What Hydra knows of the composition.
        name: The experiment's. What others of the user's own set that it begins with is given, too.
    """
    shown = f"experiment/{name}.yaml"
    sources = [source for source in hydra.runtime.config_sources if source.schema == "file"]
    files = {source.provider: Path(source.path, shown) for source in sources}
    provider = next((provider for provider, file in files.items() if file.is_file()), "main")
    if provider == "main":
        return
    given: Any = OmegaConf.to_container(OmegaConf.load(files[provider]), resolve=False)
    for entry in given.pop("defaults", []):
        if isinstance(entry, str):
            yield from in_experiment(hydra, entry)
        else:
            yield from ((shown, key.removeprefix("override ").lstrip("/"), value) for key, value in entry.items())
    yield from ((shown, key, value) for key, value in _leaves(given, ""))


def _leaves(node: Any, key: str) -> Iterator[tuple[str, object]]:
    """Dotted key and value of all that is not a mapping."""
    if not isinstance(node, dict):
        yield key, node
        return
    for name, child in node.items():
        yield from _leaves(child, f"{key}.{name}" if key else str(name))


def problem_with(override: str, found: Sequence[Unread]) -> str | None:
    """The line that names an override among what is not read; None if it is read."""
    parsed = OverridesParser.create().parse_override(override)
    return _problem(override, str(parsed.get_key_element()).lstrip("+~"), parsed.value(), found)


def _problem(shown: str, name: str, value: object, found: Sequence[Unread]) -> str | None:
    key = GROUPS.get(name, name)
    for one in found:
        if f"{key}.".startswith(f"{one.key}.") and value != one.unless:
            return f"{shown}: does nothing here: {one.why}; {one.fix}, or leave the key out"
    return None


def unread(cfg: DictConfig) -> Iterator[Unread]:
    """All keys of a composed configuration that nothing reads."""
    yield from _of_nothing_trained(cfg)
    yield from _of_the_comparison(cfg)
    yield from _of_the_schedule(cfg)
    yield from _of_the_evaluation(cfg)
    yield from _said_by_targets(OmegaConf.to_container(cfg, resolve=False), "")


def _of_nothing_trained(cfg: DictConfig) -> Iterator[Unread]:
    """What only a network with weights to train reads."""
    name, baseline = cfg.method.name, cfg.method.baseline
    if baseline is None:
        return
    yield Unread("model", f"method={name} has a map of its own in place of a segmenter", "choose another method")
    for key in ("optimizer", "scheduler", "augmentation", "head", "objective", "regularisers", "n_init"):
        yield Unread(key, f"method={name} trains nothing", "choose another method")


def _of_the_comparison(cfg: DictConfig) -> Iterator[Unread]:
    """Head, objective and pseudo-labels, by what the objectives declare."""
    terms = list(acting(build_objective(cfg)))
    names, fields = " + ".join(type(term).__name__ for term in terms), {name for term in terms for name in term.reads}
    other = "choose an objective that does (conf/objective), or another method"
    for argument in cfg.head:
        parts = get_object(cfg.head["_target_"]).acts_on.get(str(argument), {"o"})
        if not parts & fields:
            yield Unread(
                f"head.{argument}", f"the objective ({names}) reads no {' and no '.join(sorted(parts))}", other
            )
    if not {"x", "o"} & fields:
        yield Unread("head", f"the objective ({names}) reads neither x nor o", other)
    if not any(term.needs_truth for term in terms):
        why = f"the objective ({names}) reads no pixels that could be marked"
        yield Unread("pseudo_labels.supervises", why, "choose method=compseg", unless=False)
        if cfg.pseudo_labels and not get_object(cfg.pseudo_labels["_target_"]).contrasts:
            yield Unread("pseudo_labels", why, "choose method=pictures", unless="none")
    if not cfg.regularisers:
        yield Unread("objective.weight", "it weighs against regularisers, and there are none", "choose a regulariser")
    if cfg.pseudo_labels is None:
        why = "it is used where a pseudo-labeller finds nothing, and there is none"
        yield Unread("method.fallback", why, "choose pseudo_labels=fisher")
    for place, node in _nodes(OmegaConf.to_container(cfg.objective, resolve=True), "objective"):
        if node.get("weight") == 0:
            for argument in set(node) - {"weight", "_target_"}:
                yield Unread(f"{place}.{argument}", f"{place}.weight is 0", f"give {place}.weight a number above 0")


def acting(objective: Objective) -> Iterator[Objective]:
    """The objectives in a sum, and in sums in it, whose weight is not 0."""
    terms: Iterable[Any] = objective.terms.values() if isinstance(objective, Sum) else ()
    if not isinstance(objective, Sum):
        yield objective
    yield from itertools.chain.from_iterable(acting(term) for term in terms if term.weight)


def _of_the_schedule(cfg: DictConfig) -> Iterator[Unread]:
    if cfg.scheduler is None:
        return
    if "total_steps" in cfg.scheduler:
        why = "training fills in how many steps it takes"
        yield Unread("scheduler.total_steps", why, "give trainer.max_epochs", unless=None)
    if "lr" not in cfg.optimizer or "${optimizer.lr}" in str(OmegaConf.to_container(cfg.scheduler, resolve=False)):
        return
    optimizer = instantiate(cfg.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    total_steps = {"total_steps": 100} if "total_steps" in cfg.scheduler else {}
    instantiate(cfg.scheduler)(optimizer, **total_steps)
    # A schedule either starts from the optimizer's rate, or puts one of its own in its place.
    if optimizer.param_groups[0]["initial_lr"] != cfg.optimizer.lr:
        yield Unread("optimizer.lr", "the schedule has rates of its own", "give those of scheduler")


def _of_the_evaluation(cfg: DictConfig) -> Iterator[Unread]:
    split = cfg.evaluation.split
    if split == "none":
        for key in ("threshold", "rank_by"):
            yield Unread(
                f"evaluation.{key}", "evaluation.split=none judges nothing", "give evaluation.split=test or val"
            )
    if split != "test":
        why = f"evaluation.split={split} writes no report"
        yield Unread("evaluation.report", why, "give evaluation.split=test", unless=False)


def _said_by_targets(plain: Any, key: str) -> Iterator[Unread]:
    """What classes say of their own arguments."""
    for place, node in _nodes(plain, key):
        says = getattr(get_object(str(node["_target_"])), "unread", None)
        for argument, (why, fix) in (says(node) if callable(says) else {}).items():
            yield Unread(f"{place}.{argument}", why, fix)


def _nodes(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a `_target_`, and its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, child in node.items():
            yield from _nodes(child, f"{key}.{name}" if key else str(name))
