"""The jobs of a sweep as their folders tell of them: overrides, state and figures."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compseg.errors import CompsegError
from compseg.faults.lock import is_locked
from compseg.files import atomic_json

RECORD = "job.json"
DONE = ("finished", "pruned")
_COMPLAINT = re.compile(r"(compseg \w+.*?|[\w.]*(?:Error|Exception|Interrupt)): (?P<words>.+)")


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        name: Path of its folder inside the sweep's.
        overrides: What was set for it, value by key; swept keys and those that all jobs share.
        status: `finished`, `pruned` (stopped early, its figures being poor), `failed`, `running`, or `unfinished`: it
            was started and nobody is at it any more.
        why: What a failed job complained of; why one was pruned.
        seconds: How long the last attempt took; None where it has not ended.
        epochs: Trained epochs.
        figures: `metrics.json`.
    """

    name: str
    overrides: dict[str, str]
    status: str
    why: str = ""
    seconds: float | None = None
    epochs: int = 0
    figures: dict[str, float] | None = None


def write_record(
    folder: Path, overrides: Sequence[str], status: str, why: str = "", seconds: float | None = None
) -> None:
    """Write down how far a job is: `started`, `stopped`, `finished`, `pruned` or `failed`.

    Hydra keeps overrides in `.hydra` too, but writes those anew before a job could compare them.
    """
    atomic_json(folder / RECORD, {"overrides": list(overrides), "status": status, "why": why, "seconds": seconds})


def mark_pruned(folder: Path, why: str) -> None:
    """Write down that a job stops early."""
    record = _json(folder / RECORD)
    assert record is not None
    atomic_json(folder / RECORD, {**record, "status": "pruned", "why": why})


def was_pruned(folder: Path) -> bool:
    """Whether a run was a job of a sweep that was stopped early."""
    record = _json(folder / RECORD)
    return record is not None and record["status"] == "pruned"


def recorded_overrides(folder: Path) -> list[str] | None:
    """The overrides of the job that has a folder already; None for a new one."""
    return None if (record := _json(folder / RECORD)) is None else list(record["overrides"])


def refuse_another(folder: Path, overrides: Sequence[str], key: str) -> None:
    """Leave a folder alone that holds a job with other values.

    Args:
        folder: Of the job.
        overrides: Of the job that is to be run there, in any order.
        key: What the user may give to have it run elsewhere.

    Raises:
        CompsegError: If the folder holds another job.
    """
    held = recorded_overrides(folder)
    if held is not None and sorted(held) != sorted(overrides):
        differing = sorted(set(held) - set(overrides)) or ["fewer values"]
        raise CompsegError(
            f"{folder}: holds another job ({' '.join(differing)}); repeat the command with the values it was "
            f"started with, or give another {key}"
        )


def complaint_in(line: str) -> str | None:
    """What a line of a job's output complains of; None for any other line."""
    found = _COMPLAINT.fullmatch(line.strip())
    if found is None:
        return None
    return found["words"] if line.startswith("compseg ") else line.strip()


def read_job(folder: Path, name: str = "") -> Job:
    """What a job's folder tells."""
    record, figures = _json(folder / RECORD), _json(folder / "metrics.json")
    assert record is not None
    return Job(
        name=name,
        overrides=dict(map(_key_and_value, record["overrides"])),
        status=_status(folder, record["status"], figures is not None),
        why=record["why"],
        seconds=record["seconds"],
        epochs=_epochs(folder / "history.csv"),
        figures=figures,
    )


def read_jobs(sweep: Path) -> list[Job]:
    """All jobs of a sweep that were started, by name; 10 after 9.

    Raises:
        CompsegError: If the folder holds no job.
    """
    folders = [path.parent for path in sweep.rglob(RECORD)]
    if not folders:
        raise CompsegError(f"{sweep}: no sweep (no job of one inside); give the folder that compseg.train -m named")
    jobs = [read_job(folder, folder.relative_to(sweep).as_posix()) for folder in folders]
    return sorted(jobs, key=lambda job: natural(job.name))


def natural(text: str) -> list[tuple[float, str]]:
    """A key for sorting by the numbers in a text and by the text between them."""
    number = re.compile(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)")
    return [(float(part), "") if number.fullmatch(part) else (math.inf, part) for part in number.split(text)]


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Keys that jobs differ in, as the command line has them; all keys if there is but one job."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    return [key for key in keys if len(jobs) == 1 or len({job.overrides.get(key) for job in jobs}) > 1]


def lower_is_better(figure: str) -> bool:
    """Whether small values of a figure are good: losses, and what is marked in healthy samples."""
    return figure.endswith(("loss", "healthy_area_fraction"))


def figure_of(job: Job, name: str) -> float:
    """One figure of a finished job.

    Raises:
        CompsegError: If there is no such figure.
    """
    figures = job.figures or {}
    if name not in figures:
        known = ", ".join(key for key in figures if not key.endswith(("_ci_low", "_ci_high")))
        raise CompsegError(f"rank_by={name}: no such figure; figures: {known}")
    return figures[name]


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _status(folder: Path, recorded: str, judged: bool) -> str:
    if recorded not in ("started", "stopped"):
        return recorded
    if is_locked(folder):
        return "running"
    # A job may have outlived the sweep that waited for it; one that was told to end has not written all.
    return "finished" if judged and recorded == "started" else "unfinished"


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _epochs(history: Path) -> int:
    if not history.is_file():
        return 0
    with history.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))
