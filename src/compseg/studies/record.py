"""What became of a job, as its folder tells: `job.json`, metrics, trained epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compseg.errors import CompsegError, reading
from compseg.faults import is_locked
from compseg.files import checked_json, read_json
from compseg.run_folder import read_history

RECORD = "job.json"
RUN_AGAIN = "delete it; the job is then run again"
DONE = ("finished", "pruned")
STATES = ("finished", "pruned", "failed", "running", "unfinished", "waiting")
INTERVAL_ENDS = ("_ci_low", "_ci_high")
_PROBLEM = re.compile(r"(compseg \w+.*?|[\w.]*(?:Error|Exception|Interrupt)): (?P<words>.+)")


@dataclass(frozen=True)
class Record:
    """What became of a job.

    Its status is `waiting` (not started yet), `running`, `finished`, `pruned` (stopped early because its metrics were
    poor), `failed`, or `unfinished`: started, but no process works on it any more.
    """

    name: str  # path of its folder inside the study's
    overrides: Mapping[str, str]  # what was set for it, by key: what sets it apart and what all jobs share
    status: str
    why: str = ""  # it failed, was stopped or was pruned
    seconds: float | None = None  # that training took; None where it has not ended
    epochs: int = 0  # trained so far
    metrics: Mapping[str, float] = field(default_factory=dict)  # metrics.json; empty while there is none

    def metric(self, name: str) -> float:
        """One metric of a finished job.

        Raises:
            CompsegError: If there is no such metric.
        """
        if name not in self.metrics:
            known = ", ".join(key for key in self.metrics if not key.endswith(INTERVAL_ENDS))
            raise CompsegError(f"rank_by={name}: no such metric; metrics: {known}")
        return self.metrics[name]


def write_record(
    folder: Path, overrides: Sequence[str], status: str, why: str = "", seconds: float | None = None
) -> None:
    """Write down how far a job is: `started`, `stopped`, `finished`, `pruned` or `failed`.

    Hydra keeps overrides in `.hydra` too, but overwrites those before a job could compare them.
    """
    checked_json(folder / RECORD, {"overrides": list(overrides), "status": status, "why": why, "seconds": seconds})


def mark_pruned(folder: Path, why: str) -> None:
    """Write down that a job stops early."""
    record = _json(folder / RECORD)
    assert record is not None
    checked_json(folder / RECORD, {**record, "status": "pruned", "why": why})


def is_job(folder: Path) -> bool:
    """Whether a run is a job of a study."""
    return (folder / RECORD).is_file()


def was_pruned(folder: Path) -> bool:
    """Whether a run was a job of a search that was stopped early."""
    return (_json(folder / RECORD) or {}).get("status") == "pruned"


def refuse_another(folder: Path, overrides: Sequence[str], key: str) -> None:
    """Leave a folder alone that holds a job with other values; `key` is what the user may set to run elsewhere.

    Raises:
        CompsegError: If the folder holds another job.
    """
    record = _json(folder / RECORD)
    if record is None:
        return
    with reading(folder / RECORD, RUN_AGAIN):
        before = [str(value) for value in record["overrides"]]
    if sorted(before) == sorted(overrides):
        return
    differing = sorted(set(before) - set(overrides)) or ["fewer values"]
    raise CompsegError(
        f"{folder}: holds another job ({' '.join(differing)}); repeat the command with the values it was started "
        f"with, or give another {key}"
    )


def problem_in(line: str) -> str | None:
    """What went wrong according to a line of a job's output; None for any other line."""
    found = _PROBLEM.fullmatch(line.strip())
    if found is None:
        return None
    return found["words"] if line.startswith("compseg ") else line.strip()


def read_record(folder: Path, name: str = "") -> Record:
    """What a job's folder tells."""
    record, metrics = _json(folder / RECORD), _json(folder / "metrics.json")
    if record is None:
        return Record(name, {}, "waiting")
    with reading(folder / RECORD, RUN_AGAIN):
        return Record(
            name=name,
            overrides=dict(map(_key_and_value, record["overrides"])),
            status=_status(folder, record["status"], metrics is not None),
            why=record["why"],
            seconds=record["seconds"],
            epochs=len(read_history(folder)),
            metrics=metrics or {},
        )


def read_records(study: Path) -> list[Record]:
    """Records of all jobs of a study that were started, by name; 10 after 9.

    Raises:
        CompsegError: If the folder holds no job.
    """
    # At any depth, because `hydra.sweep.subdir` is the user's to choose.
    folders = [path.parent for path in study.rglob(RECORD)]
    if not folders:
        raise CompsegError(f"{study}: no sweep (no job of one inside); give the folder that compseg.train -m named")
    records = [read_record(folder, folder.relative_to(study).as_posix()) for folder in folders]
    return sorted(records, key=lambda record: natural(record.name))


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts texts by the numbers in them and by the text between."""
    number = re.compile(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)")
    # Pairs of one form throughout: Python refuses to compare a number with a text.
    return [(float(part), "") if number.fullmatch(part) else (math.inf, part) for part in number.split(text)]


def swept_keys(records: Sequence[Record]) -> list[str]:
    """Keys that jobs differ in, as the command line has them; all keys if there is only one job."""
    keys = list(dict.fromkeys(key for record in records for key in record.overrides))
    return [key for key in keys if len(records) == 1 or len({record.overrides.get(key) for record in records}) > 1]


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _status(folder: Path, recorded: str, has_metrics: bool) -> str:
    if recorded not in ("started", "stopped"):
        return recorded
    if is_locked(folder):
        return "running"
    # A job may outlive the sweep that waits for it; one that was told to end has not written everything.
    return "finished" if has_metrics and recorded == "started" else "unfinished"


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path, dict, RUN_AGAIN) if path.is_file() else None
