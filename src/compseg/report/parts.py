"""Parts of pages that lay runs side by side: charts, a table, samples with their pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """A cell of a table: its text, a number to sort by, an address, and what is said on pointing at it."""

    text: str
    number: float | None = None
    href: str = ""
    tip: str = ""


class Shown(NamedTuple):
    """A sample of a gallery: pictures as data URIs by their caption, empty where a run has none."""

    name: str
    disease: bool
    words: str
    pictures: list[tuple[str, str]]


@dataclass
class Part:
    """A section of a page.

    Attributes:
        heading: Above it.
        words: What it shows.
        charts: Identifier and caption of each chart; its options are in `options` by that identifier.
        options: See `chart` in plots.js.
        head: Of the table.
        rows: Of the table.
        gallery: Samples with their pictures.
    """

    heading: str
    words: str = ""
    charts: list[tuple[str, str]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    gallery: Sequence[Shown] = ()

    def add(self, name: str, words: str, options: dict[str, Any]) -> None:
        """Add a chart of a name that no other chart of the page has."""
        self.charts.append((name, words))
        self.options[name] = {"label": words, **options}


def charts_of(parts: Sequence[Part]) -> dict[str, Any]:
    """The options of all charts by their identifiers."""
    return {name: options for part in parts for name, options in part.options.items()}


def number(value: float | None, digits: str = ".4g", **more: str) -> Cell:
    """A cell of a number; an empty one where it is missing or none."""
    if value is None or not math.isfinite(value):
        return Cell("", None, **more)
    return Cell(f"{value:{digits}}", float(value), **{"tip": repr(float(value)), **more})


def finite(values: Iterable[float]) -> list[float | None]:
    """Numbers for a chart, which JSON can hold: None where a value is no number."""
    return [finite_or_none(value) for value in values]


def finite_or_none(value: float) -> float | None:
    """A number for a script, which JSON can hold: None where it is no number."""
    return float(value) if math.isfinite(value) else None
