"""A page of tables, charts and maps for several runs: side by side, of a sweep, of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from compseg.files import atomic_text
from compseg.report.page import render
from compseg.report.parts import Part, charts_of


def write_study(path: Path, kind: str, title: str, lead: str, parts: Sequence[Part]) -> Path:
    """Write a page of several runs; it needs nothing else, as `report.html`."""
    data = {"charts": charts_of(parts)}
    atomic_text(path, render("study.html", data, kind=kind, title=title, lead=lead, sections=parts))
    return path


def report_of(folder: Path, name: str) -> str:
    """The address of a run's report from a page in the folder above it; empty where it has none."""
    return f"{quote(name)}/report.html" if (folder / name / "report.html").is_file() else ""
