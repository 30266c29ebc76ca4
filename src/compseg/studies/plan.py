"""What a comparison will train: from the entries of its configuration to a list of jobs, each with its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.config.literals import literal, quoted
from compseg.errors import CompsegError, require
from compseg.file_names import file_name, file_names, same_file
from compseg.studies.slots import device_count

NO_FOLDS: Mapping[str, str] = MappingProxyType({})
# What an entry may hold beside the word that it is about.
_ENTRY = ("name", "overrides")
_COHORT = ("path", "source")


@dataclass(frozen=True)
class Choice:
    """A method, model or cohort of a comparison."""

    name: str  # what tables call it
    picks: tuple[str, ...]  # overrides that choose it
    overrides: tuple[str, ...] = ()  # further overrides that hold with it alone


@dataclass(frozen=True)
class Planned:
    """A job of a comparison: one training run."""

    cohort: str
    model: str
    method: str
    seed: int
    held_out: str  # the group or fold that is left out of training; empty where the cohort's own splits are used
    overrides: tuple[str, ...]  # what `compseg.train` is given to run it
    group_folder: str = ""  # what the folder calls the group that is left out

    @property
    def name(self) -> str:
        """Path of its folder inside the comparison's."""
        without = f"without_{self.group_folder or file_name(self.held_out)}" if self.held_out else ""
        return "/".join(filter(None, [self.cohort, self.model, self.method, without, f"seed_{self.seed}"]))

    @property
    def devices(self) -> int:
        """How many devices it computes on."""
        given = [item.partition("=")[2] for item in self.overrides if item.startswith("trainer.devices=")]
        return device_count(given[-1])

    @property
    def contender(self) -> tuple[str, str]:
        """What is ranked: model and method."""
        return self.model, self.method


@dataclass(frozen=True)
class Layout:
    """What table, page and picture of a comparison show."""

    split: str  # val or test
    metrics: tuple[str, ...]  # names without the split; the first ranks
    upper_bound: str  # the method that the others are measured against
    baselines: tuple[str, ...]  # methods that any other should pass

    @property
    def rank_by(self) -> str:
        """The key in `metrics.json` that ranks."""
        return f"{self.split}/{self.metrics[0]}"

    @property
    def apart(self) -> tuple[str, ...]:
        """Methods to compare with, which take no part in the ranking."""
        return (self.upper_bound, *self.baselines)


@dataclass(frozen=True)
class Plan:
    """What a comparison combines; cohorts, models and methods in the order given."""

    cohorts: list[Choice]
    models: list[Choice]
    methods: list[Choice]
    seeds: list[int]
    overrides: tuple[str, ...]  # for all runs
    held_out_as: str  # what a left-out group is: test or val

    def of(self, cohort: Choice, model: Choice, method: Choice) -> tuple[str, ...]:
        """Overrides of all runs of a cohort, a model and a method; later ones win."""
        three = (cohort, model, method)
        picks = [item for choice in three for item in choice.picks]
        return (*picks, *self.overrides, *(item for choice in three for item in choice.overrides))

    def given(self, cohort: str, model: str, method: str) -> list[str]:
        """Overrides of all runs of these names, without those that choose cohort, model and method."""
        chosen = zip((self.cohorts, self.models, self.methods), (cohort, model, method), strict=True)
        own = [one.overrides for choices, name in chosen for one in choices if one.name == name]
        return [*self.overrides, *(item for overrides in own for item in overrides)]

    def jobs(self, groups: Mapping[str, Sequence[str]], folds: Mapping[str, str] = NO_FOLDS) -> list[Planned]:
        """Every run, seed by seed, so that a comparison that is stopped half-way has some runs of everything.

        Args:
            groups: The groups to leave out in turn, by the name of the cohort; without any, its own splits are used.
            folds: Of groups that are folds, the value of `data.held_out`.
        """
        # Of all groups together, or `A 1` and `A_1` would share their folders, and so their metrics.
        folders = {cohort: file_names(names) for cohort, names in groups.items()}
        return [
            Planned(
                *(c.name, m.name, k.name, seed, group),
                self._of_job(c, m, k, seed, folds.get(group) or (group and quoted(group))),
                folders[c.name][group] if group else "",
            )
            for seed in self.seeds
            for c in self.cohorts
            for group in groups.get(c.name) or [""]
            for m in self.models
            for k in self.methods
        ]

    def _of_job(self, cohort: Choice, model: Choice, method: Choice, seed: int, held_out: str) -> tuple[str, ...]:
        left_out = [f"data.held_out={held_out}", f"data.held_out_as={self.held_out_as}"] if held_out else []
        # First, so that an entry may ask for more: `devices` reads the last of them.
        return ("trainer.devices=1", *self.of(cohort, model, method), f"seed={seed}", *left_out)


def plan(cfg: DictConfig) -> Plan:
    """Read the entries of `conf/compare.yaml`.

    Raises:
        CompsegError: If an entry is not understood, or two have the same name.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return Plan(
        cohorts=_unique("cohorts", _cohorts(plain["cohorts"])),
        models=_unique("models", [_choice("model", entry) for entry in _listed(plain["models"])]),
        methods=_unique("methods", [_choice("method", entry) for entry in _listed(plain["methods"])]),
        seeds=_seeds(plain["seeds"]),
        overrides=_overrides("overrides", plain["overrides"] or []),
        held_out_as=plain["split"],
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _seeds(value: Any) -> list[int]:
    seeds = list(range(value)) if isinstance(value, int) else _listed(value)
    if not seeds or not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise CompsegError(f"seeds={value}: expected how many, at least 1, or a list of whole numbers")
    # In one folder, a run would count as two that agree to the last digit.
    require(len(set(seeds)) == len(seeds), f"seeds={value}: a seed is there twice; give each once")
    return seeds


def _choice(group: str, entry: Any) -> Choice:
    """A method or model: its name in `conf/`, or `{method: its name, name: in tables, overrides: [...]}`."""
    if isinstance(entry, str):
        return Choice(entry, (f"{group}={entry}",))
    _refuse_unknown(f"{group}s", entry, (group,))
    if group not in entry:
        raise CompsegError(f"{group}s: {entry}: which {group}? add {group}: ...")
    return Choice(
        str(entry.get("name", entry[group])), (f"{group}={entry[group]}",), _entry_overrides(f"{group}s", entry)
    )


def _cohorts(given: Any) -> list[Choice]:
    if isinstance(given, Mapping):
        return [_cohort(entry, str(name)) for name, entry in given.items()]
    return [_cohort(entry) for entry in _listed(given)]


def _cohort(entry: Any, name: str = "") -> Choice:
    """A path or the name of a source in `conf/source`; or `{path:, source:, name:, overrides:}`."""
    if isinstance(entry, str):
        entry = {"path": entry} if _is_path(entry) else {"source": entry}
    _refuse_unknown("cohorts", entry, _COHORT)
    if not entry.keys() & set(_COHORT):
        raise CompsegError(f"cohorts: {entry}: expected the path of a cohort or the name of a source")
    source = entry.get("source")
    path = entry.get("path", f"data/{source}.zarr")
    picks = ("data=phantom", f"source@data.source={source}") if source else ("data=cohort",)
    default = str(source or Path(path).name.removesuffix(".zarr"))
    return Choice(
        name or str(entry.get("name", default)),
        (*picks, f"data.path={quoted(path)}"),
        _entry_overrides("cohorts", entry),
    )


def _is_path(word: str) -> bool:
    return "/" in word or word.endswith(".zarr") or Path(word).exists()


def _refuse_unknown(key: str, entry: Any, own: Iterable[str]) -> None:
    known = [*own, *_ENTRY]
    if not isinstance(entry, Mapping):
        raise CompsegError(f"{key}: {entry!r}: expected a name, or an entry with the keys {', '.join(known)}")
    for unknown in sorted(set(map(str, entry)) - set(known)):
        raise CompsegError(f"{key}: {unknown}: no such key of an entry; keys: {', '.join(known)}")


def _overrides(key: str, given: Any) -> tuple[str, ...]:
    """`{trainer.max_epochs: 30}`, or a list of `key=value` as a command line has them."""
    if isinstance(given, Mapping):
        return tuple(f"{name}={literal(value)}" for name, value in given.items())
    if not isinstance(given, list) or not all(isinstance(item, str) and "=" in item for item in given):
        raise CompsegError(f"{key}: overrides: {given}: expected {{key: value}}, keys as on the command line of train")
    return tuple(given)


def _entry_overrides(key: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    return _overrides(key, entry.get("overrides", []))


def _unique(key: str, choices: list[Choice]) -> list[Choice]:
    """The choices, if their names can be told apart and can be folders."""
    seen: set[str] = set()
    for choice in choices:
        if same_file(choice.name) in seen:
            raise CompsegError(f"{key}: {choice.name} is there twice; give the entries names: {{name: ..., ...}}")
        if choice.name != (fitting := file_name(choice.name)):
            raise CompsegError(f"{key}: the name {choice.name!r} becomes a folder; give another, for example {fitting}")
        seen.add(same_file(choice.name))
    if not choices:
        raise CompsegError(f"{key}: nothing to compare; give {key}=[...]")
    return choices


def composed(plan: Plan, compose: Callable[[Sequence[str]], DictConfig]) -> dict[tuple[str, str, str], DictConfig]:
    """Configurations by cohort, model and method: every cohort and every pair of model and method is in one of them."""
    first = plan.cohorts[0], plan.models[0], plan.methods[0]
    wanted = [(first[0], model, method) for model in plan.models for method in plan.methods]
    wanted += [(cohort, *first[1:]) for cohort in plan.cohorts[1:]]
    return {(c.name, m.name, k.name): compose(plan.of(c, m, k)) for c, m, k in wanted}
