"""What a comparison leaves in its folder: the table, a row a job, and the page, ranked, with its picture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compseg.files import atomic_bytes, atomic_text
from compseg.report.parts import Cell, Part, finite, number
from compseg.report.study import report_of, write_study
from compseg.studies.page import better_of, csv_of, frame_of, markdown, one_line, states
from compseg.studies.pictures import picture_of_comparison, png
from compseg.studies.plan import Layout
from compseg.studies.scores import (
    Outcome,
    Score,
    labels_of,
    lead,
    ordered,
    ranking,
    scores,
    share_of,
)

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("cohort", "model", "method", "seed", "held_out")


def write_comparison(folder: Path, outcomes: Sequence[Outcome], layout: Layout) -> Path:
    """Write `comparison.csv`, `.html`, `.md` and, once a job has the metric, `.png`; the path of `comparison.md`."""
    atomic_text(folder / "comparison.csv", csv_of(comparison_frame(outcomes, layout.split)))
    figure = picture_of_comparison(outcomes, layout)
    if figure:
        atomic_bytes(folder / "comparison.png", png(figure))
    write_comparison_html(folder / "comparison.html", outcomes, layout)
    path = folder / "comparison.md"
    atomic_text(path, comparison_page(folder.name, outcomes, layout, with_picture=figure is not None))
    return path


def comparison_frame(outcomes: Sequence[Outcome], split: str) -> pd.DataFrame:
    """The table of a comparison: what a job is, then as `frame_of`; metrics of the other split are not shown."""
    labels = [{key: getattr(one.planned, key) for key in KEYS} for one in outcomes]
    # A run that was judged on both splits has test metrics too: who chooses by val must not see them.
    shown = (f"{split}/", "threshold", "val/loss")
    return frame_of(labels, [one.record for one in outcomes], lambda name: name.startswith(shown))


def comparison_page(name: str, outcomes: Sequence[Outcome], layout: Layout, *, with_picture: bool) -> str:
    """The comparison for people, in Markdown."""
    found = scores(outcomes, layout.rank_by)
    parts = [f"# Comparison {one_line(name)}\n\n{states([one.record for one in outcomes])}.\n"]
    if with_picture:
        parts.append("![](comparison.png)\n")
    parts.append(_how_to_read(layout))
    for heading, table in _tables(outcomes, found, layout):
        parts += [f"## {one_line(heading)}\n", markdown(*table)]
    return "\n".join(parts)


def write_comparison_html(path: Path, outcomes: Sequence[Outcome], layout: Layout) -> Path:
    """Write the same as a page with tables to sort, a chart for each cohort, and links to the reports."""
    found = [one for one in scores(outcomes, layout.rank_by) if math.isfinite(one.mean)]
    charts = Part(
        "In pictures", "A dot is a run, a square their mean, a line its 95 % interval; point at one for its number."
    )
    for place, cohort in enumerate(dict.fromkeys(one.cohort for one in found)):
        here = ordered([one for one in found if one.cohort == cohort], layout.rank_by)
        charts.add(f"cohort-{place}", f"{layout.rank_by} on {cohort}", _chart(here, outcomes, layout, path.parent))
    tables = [
        Part(heading, head=head, rows=[[_sortable(cell) for cell in row] for row in rows])
        for heading, (head, rows) in _tables(outcomes, scores(outcomes, layout.rank_by), layout)
    ]
    lead = f"{states([one.record for one in outcomes])}."
    first = [*[charts] * bool(charts.charts)]
    return write_study(
        path,
        "compseg: a comparison",
        path.parent.name,
        lead,
        [
            *first,
            Part("How to read it", _how_to_read(layout).replace("`", '"')),
            *tables,
            _runs(outcomes, layout, path.parent),
        ],
    )


def _chart(here: Sequence[Score], outcomes: Sequence[Outcome], layout: Layout, folder: Path) -> dict[str, Any]:
    label, places = labels_of([one.contender for one in here]), list(range(len(here)))
    row = {one.contender: place for place, one in zip(places, here, strict=True)}
    jobs = [
        one
        for one in outcomes
        if one.planned.cohort == here[0].cohort
        and one.planned.contender in row
        and layout.rank_by in one.record.metrics
    ]
    runs = {
        "name": "runs",
        "kind": "dots",
        "colour": "blue",
        "x": finite(one.record.metrics[layout.rank_by] for one in jobs),
        "y": [row[one.planned.contender] for one in jobs],
        "tips": [f"{one.planned.name}\n{one.record.metrics[layout.rank_by]:.4g}" for one in jobs],
        "links": [report_of(folder, one.planned.name) for one in jobs],
    }
    ends = {end: finite(getattr(one, end) for one in here) for end in ("mean", "low", "high")}
    bars = {"kind": "ranges", "colour": "ink", "x": ends["low"], "x2": ends["high"], "y": places}
    tips = [f"{label[one.contender]}: {_cell(one)}" for one in here]
    means = {"name": "mean", "kind": "dots", "colour": "red", "x": ends["mean"], "y": places, "tips": tips}
    names = [label[one.contender] for one in here]
    y = {"label": "", "names": names, "min": -0.5, "max": len(here) - 0.5, "reverse": True}
    return {"series": [bars, runs, means], "x": {"label": layout.rank_by}, "y": y, "height": 90 + 30 * len(here)}


def _sortable(cell: object) -> Cell:
    """A cell that is sorted by the number that it begins with, if it begins with one."""
    text = str(cell)
    begins = re.match(r"[+-]?\d*\.?\d+", text)
    return Cell(text, float(begins[0]) if begins else None)


def _runs(outcomes: Sequence[Outcome], layout: Layout, folder: Path) -> Part:
    rows = [
        [Cell(one.record.name, href=report_of(folder, one.planned.name)), Cell(one.record.status, tip=one.record.why)]
        + [number(one.record.metrics.get(f"{layout.split}/{metric}")) for metric in layout.metrics]
        for one in outcomes
    ]
    return Part(
        "Runs",
        "Every run; a link where it has a report of its own.",
        head=("run", "status", *layout.metrics),
        rows=rows,
    )


Table = tuple[Sequence[str], list[list[str]]]


def _tables(outcomes: Sequence[Outcome], found: Sequence[Score], layout: Layout) -> Iterator[tuple[str, Table]]:
    """All tables of a comparison, with their headings."""
    cohorts = list(dict.fromkeys(one.cohort for one in found))
    if len(cohorts) > 1:
        yield "Overall", _overall(found, cohorts, layout)
    for cohort in cohorts:
        yield cohort, _on_cohort([one for one in outcomes if one.planned.cohort == cohort], found, layout)
    if groups := scores(outcomes, layout.rank_by, by_group=True):
        yield "Left-out groups", _groups(groups, layout)
    if failed := [one.record for one in outcomes if one.record.status == "failed"]:
        yield "Failed", (["job", "why"], [[record.name, record.why] for record in failed])


def _how_to_read(layout: Layout) -> str:
    lines = [
        f"Ranked by {better_of(layout.rank_by)}: mean over seeds ± standard deviation over seeds, and in "
        "brackets the 95 % bootstrap interval of the mean, seeds and patients (else samples) sampled with replacement. "
        "`to the best` is the difference to the best that is ranked, in pairs: where its interval leaves out 0, the "
        "two differ surely."
    ]
    if layout.split == "val":
        lines.append("Metrics of validation samples: the checkpoint and the threshold were chosen on them too.")
    else:
        lines.append("What is chosen by these metrics has to be judged on other samples; `split=val` is for choosing.")
    return "\n".join(lines) + "\n"


def _overall(found: Sequence[Score], cohorts: Sequence[str], layout: Layout) -> Table:
    label = labels_of([one.contender for one in found])
    rows = [
        [i, label[one.contender], _number(one.mean, 2) + _interval(one.low, one.high, 2)]
        + [f"{one.ranks[cohort]:g}" if cohort in one.ranks else "" for cohort in cohorts]
        for i, one in enumerate(ranking(found, layout.rank_by, layout.apart), 1)
    ]
    return ["rank", "method", "mean rank", *cohorts], [list(map(str, row)) for row in rows]


def _on_cohort(outcomes: Sequence[Outcome], found: Sequence[Score], layout: Layout) -> Table:
    """The contenders on one cohort, the best first, with the other metrics."""
    label = labels_of([one.contender for one in found])
    cohort = outcomes[0].planned.cohort
    here = ordered([one for one in found if one.cohort == cohort], layout.rank_by)
    shares = {one.contender: share_of(one, here, layout.upper_bound) for one in here}
    with_share = any(map(math.isfinite, shares.values()))
    others = {
        metric: {one.contender: one for one in scores(outcomes, f"{layout.split}/{metric}")}
        for metric in layout.metrics[1:]
    }
    # A cohort without truth has no metric that needs it, and its table no empty column.
    others = {metric: cells for metric, cells in others.items() if any(one.values for one in cells.values())}
    ranks = {one.contender: one.mean for one in ranking(here, layout.rank_by, layout.apart)}
    # Not the first row, which may be the upper bound: no method competes with that.
    best = next((one for one in here if one.contender in ranks), None)

    def rank_or_role(one: Score) -> str:
        if one.contender[1] in layout.apart:
            return "upper bound" if one.contender[1] == layout.upper_bound else "baseline"
        return f"{ranks[one.contender]:g}" if one.contender in ranks else ""

    def row(one: Score) -> list[str]:
        share = shares[one.contender]
        seeds = f"{len(one.values)}/{one.planned}"
        of_bound = [f"{100 * share:.0f} %" if math.isfinite(share) else ""] * with_share
        spreads = [_spread(cells[one.contender]) for cells in others.values()]
        return [rank_or_role(one), label[one.contender], seeds, _cell(one), _gap(one, best), *of_bound, *spreads]

    head = ["rank", "method", "seeds", layout.metrics[0], "to the best", *["of the upper bound"] * with_share, *others]
    return head, list(map(row, here))


def _gap(one: Score, best: Score | None) -> str:
    """`-0.021 [-0.034, -0.008]`: how far a method is from the best that is ranked."""
    if best is None or one is best or not math.isfinite(one.mean):
        return ""
    # In pairs, because two methods whose own intervals overlap may still differ surely.
    difference, low, high = lead(one, best)
    return f"{difference:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else "")


def _groups(groups: Sequence[Score], layout: Layout) -> Table:
    label = labels_of([one.contender for one in groups])
    rows = [
        [one.cohort, one.held_out, label[one.contender], f"{len(one.values)}/{one.planned}", _cell(one)]
        for one in sorted(groups, key=lambda one: (one.cohort, one.held_out))
    ]
    return ["cohort", "left out", "method", "seeds", layout.metrics[0]], rows


def _cell(one: Score) -> str:
    """`.899 ± .012 [.850, .930]`, without what is not known."""
    return _spread(one) + _interval(one.low, one.high)


def _spread(one: Score) -> str:
    return _number(one.mean) + (f" ± {_number(one.sd)}" if math.isfinite(one.sd) else "")


def _interval(low: float, high: float, digits: int = 3) -> str:
    return f" [{_number(low, digits)}, {_number(high, digits)}]" if math.isfinite(low) else ""


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""
