"""From what a user writes behind a key to what Optuna may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from compseg.errors import CompsegError


class Space:
    """What is searched, and what holds for all trials.

    Args:
        arguments: Overrides of the command line. `interval(a, b)` is a range of numbers, `int(interval(a, b))` of whole
            ones, with `tag(log, ...)` around it on a logarithmic scale; `range(a, b, step)` of whole numbers is a range
            too; any other sweep is a choice.
        loader: Hydra's, for `glob(...)`.

    Raises:
        CompsegError: If nothing is swept.
    """

    def __init__(self, arguments: Sequence[str], loader: Any = None) -> None:
        parsed: list[Override] = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
        self.swept = {str(item.get_key_element()): item for item in parsed if item.is_sweep_override()}
        self.fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        if not self.swept:
            raise CompsegError(
                "hydra/sweeper=search: nothing to search; give a key several values (model=unet,segnet) "
                "or a range (head.alpha=interval(0.01,0.5))"
            )

    def suggest(self, trial: Any) -> list[str]:
        """The overrides of the job of an `optuna.Trial`, or of whatever else suggests as one does."""
        return [f"{key}={_suggest(trial, key, item)}" for key, item in self.swept.items()] + self.fixed


def _suggest(trial: Any, key: str, item: Override) -> str:
    sweep = item.value()
    if isinstance(sweep, IntervalSweep):
        log, low, high = "log" in sweep.tags, sweep.start, sweep.end
        suggest = trial.suggest_int if {type(low), type(high)} == {int} else trial.suggest_float
        return repr(suggest(key, low, high, log=log))
    choices = list(item.sweep_string_iterator())
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and all(_is_whole(choice) for choice in choices):
        first, last = int(choices[0]), int(choices[-1])
        step = abs(int(choices[1]) - first) if len(choices) > 1 else 1
        return str(trial.suggest_int(key, min(first, last), max(first, last), step=step))
    return str(trial.suggest_categorical(key, choices))


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdigit()
