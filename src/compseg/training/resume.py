"""What a run must have in common with the checkpoint that it continues from, and how its schedule continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compseg.cohort import Cohort
from compseg.errors import CompsegError
from compseg.run_folder import FINGERPRINT

# Keys, and all below them, that may be others than before: what does not change what is learned, or how long.
MAY_DIFFER = (
    "name",
    "overwrite",
    "logger",
    "evaluation",
    "callbacks",
    "trainer",
    "data.path",  # the cohort has to be the same, wherever it is
    "data.source",
    "data.cache",
    "data.workers",
    "optimizer.fused",
)
# Of these the ones that must not.
MUST_NOT = (
    *(f"callbacks.best_and_last.{key}" for key in ("monitor", "mode", "after")),
    *(f"trainer.{key}" for key in ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")),
    *(f"trainer.{key}" for key in ("limit_train_batches", "limit_val_batches", "overfit_batches", "sync_batchnorm")),
    *(f"trainer.{key}" for key in ("check_val_every_n_epoch", "val_check_interval")),
)
SHOWN = 4  # differences that the error names
ABSENT = "nothing"


def refuse_another(
    checkpoint: Mapping[str, Any] | None,
    path: Path | None,
    config: Mapping[str, Any],
    cohort: Cohort,
    fallback: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a checkpoint that is not of this cohort and this configuration, or is beyond the epochs asked for.

    Args:
        checkpoint: As `load_checkpoint` gives it; one of an earlier version says less, and is compared in less. None:
            it continues from nothing, and nothing is refused.
        path: Its file, for the message.
        config: What was asked for, resolved.
        cohort: To train on.
        fallback: The same with the method's fallback, which the checkpoint may be of as well: of any of its inits,
            which are compared with their own checkpoints later.

    Raises:
        CompsegError: It is of another.
    """
    if checkpoint is None:
        return
    if checkpoint.get(FINGERPRINT, cohort.fingerprint) != cohort.fingerprint:
        raise CompsegError(
            f"{path}: is of another cohort than {cohort.path} now holds (other samples, labels, splits or pixels); put "
            "that one back, or train in a new folder (hydra.run.dir=)"
        )
    if before := checkpoint.get("config"):
        possible = [config] if fallback is None else [config, _seeded_as(fallback, before)]
        found = min((list(differences(before, each)) for each in possible), key=len)
        if found:
            more = [f"{len(found) - SHOWN} more"] * (len(found) > SHOWN)
            raise CompsegError(
                f"{path}: cannot be continued with {', '.join([*found[:SHOWN], *more])}; give what it has, or train in "
                "a new folder (hydra.run.dir=)"
            )
    epochs, done = config["trainer"]["max_epochs"], _epochs_done(checkpoint)
    if epochs is not None and 0 <= epochs < done:
        raise CompsegError(
            f"{path}: has {done} epochs, trainer.max_epochs={epochs} asks for fewer; give at least {done}"
        )


def _seeded_as(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    data = {**config["data"], "seed": other["data"]["seed"]}
    return {**config, "seed": other["seed"], "n_init": other["n_init"], "data": data}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """In words, each key that must not differ and does, with its value and the one before."""
    old, new = dict(_flat(before)), dict(_flat(now))
    for key in sorted({*old, *new}):
        one, other = old.get(key, ABSENT), new.get(key, ABSENT)
        # What training measures by itself, it will find as before, from the same cohort.
        if one != other != "auto" and (_is_below(key, MUST_NOT) or not _is_below(key, MAY_DIFFER)):
            yield f"{key}={_shown(other)} (it has {_shown(one)})"


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` to `("a.b", 1)`."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        # Nothing chosen and nothing there are the same; a configuration may say either.
        yield key, value if value not in (None, {}, []) else ABSENT


def _is_below(key: str, keys: Sequence[str]) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in keys)


def _shown(value: Any) -> str:
    return f"{value}" if len(f"{value}") <= 40 else f"{str(value)[:37]}..."


def _epochs_done(checkpoint: Mapping[str, Any]) -> int:
    done: int = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return done


def replanned(scheduler: Any, make: Callable[..., Any], steps: int, share: float) -> Any:
    """A schedule of another length, at the place where it would be if it had been planned so.

    Its place is the share of the epochs that are done, because on other devices an epoch has another number of steps.

    Args:
        scheduler: As it was stored, with `total_steps`.
        make: Makes one of an optimizer, `total_steps` and `last_epoch`.
        steps: That it is to have.
        share: Of the epochs that are asked for now, those that were asked for before.
    """
    if scheduler.total_steps == steps:
        return scheduler
    done = round(scheduler.last_epoch / scheduler.total_steps * share * steps)
    # When it is made, a scheduler takes the step after `last_epoch`.
    return make(scheduler.optimizer, total_steps=steps, last_epoch=done - 1)
