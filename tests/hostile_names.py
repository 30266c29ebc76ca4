"""Names that a stranger, or a user who means no harm, may give; and what changed on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

NAMES = [
    *("../../x", "/abs/x", "a/b", "..", ".", "", "con", "n" * 300, "日本語", "<script>alert(1)</script>", "a\nb"),
    *("=1+1", r"$\frac{$", "a\udcffb", "A 1", "A_1", "a_1", "a", "a_mask", "a|b", "\x1b]0;title\x07", "e\u0301", "é"),
]
# What Zarr refuses to read; and a cohort with an empty name is refused as a whole.
UNREADABLE = ("../../x", "..", ".", "n" * 300, "a\udcffb")
READABLE = [name for name in NAMES if name and name not in UNREADABLE]


def snapshot(folder: Path) -> dict[str, str]:
    """Content of every file below a folder, by its path."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def changed(before: dict[str, str], after: dict[str, str]) -> list[Path]:
    """What is new, gone, or other than it was."""
    return [Path(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path)]


def rename_samples(cohort: Path, names: list[str], split: str = "test") -> None:
    """Give a cohort's last samples other names, and a split, as a stranger may who writes Zarr by hand."""
    root = cohort / "zarr.json"
    text = json.loads(root.read_text())
    rows = text["attributes"]["compseg"]["samples"]
    for row, name in zip(rows[-len(names) :], names, strict=True):
        new = cohort / "samples" / name.lstrip("/").replace("\\", "/")  # as Zarr reads it
        if name not in UNREADABLE:
            new.mkdir(parents=True, exist_ok=True)
            for part in (cohort / "samples" / row["name"]).iterdir():
                if part.is_dir():
                    shutil.move(part, new / part.name)
        row["name"], row["split"] = name, split
    root.write_text(json.dumps(text))
