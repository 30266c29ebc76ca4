"""What a comparison leaves in its folder: the table, a row a job, and the page, ranked, with its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compseg.files import atomic_bytes, atomic_text
from compseg.studies.page import better_of, csv_of, frame_of, markdown, states
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
    """Write `comparison.csv`, `comparison.md` and, once a job has the metric, `comparison.png`; the page's path."""
    atomic_text(folder / "comparison.csv", csv_of(comparison_frame(outcomes, layout.split)))
    figure = picture_of_comparison(outcomes, layout)
    if figure:
        atomic_bytes(folder / "comparison.png", png(figure))
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
    cohorts = list(dict.fromkeys(one.cohort for one in found))
    parts = [f"# Comparison {name}\n\n{states([one.record for one in outcomes])}.\n"]
    if with_picture:
        parts.append("![](comparison.png)\n")
    parts.append(_how_to_read(layout))
    if len(cohorts) > 1:
        parts += ["## Overall\n", _overall(found, cohorts, layout)]
    for cohort in cohorts:
        here = [one for one in outcomes if one.planned.cohort == cohort]
        parts += [f"## {cohort}\n", _on_cohort(here, found, layout)]
    if groups := scores(outcomes, layout.rank_by, by_group=True):
        parts += ["## Left-out groups\n", _groups(groups, layout)]
    if failed := [one.record for one in outcomes if one.record.status == "failed"]:
        parts += ["## Failed\n", markdown(["job", "why"], [[record.name, record.why] for record in failed])]
    return "\n".join(parts)


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


def _overall(found: Sequence[Score], cohorts: Sequence[str], layout: Layout) -> str:
    label = labels_of([one.contender for one in found])
    rows = [
        [i, label[one.contender], _number(one.mean, 2) + _interval(one.low, one.high, 2)]
        + [f"{one.ranks[cohort]:g}" if cohort in one.ranks else "" for cohort in cohorts]
        for i, one in enumerate(ranking(found, layout.rank_by, layout.apart), 1)
    ]
    return markdown(["rank", "method", "mean rank", *cohorts], rows)


def _on_cohort(outcomes: Sequence[Outcome], found: Sequence[Score], layout: Layout) -> str:
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
    return markdown(head, map(row, here))


def _gap(one: Score, best: Score | None) -> str:
    """`-0.021 [-0.034, -0.008]`: how far a method is from the best that is ranked."""
    if best is None or one is best or not math.isfinite(one.mean):
        return ""
    # In pairs, because two methods whose own intervals overlap may still differ surely.
    difference, low, high = lead(one, best)
    return f"{difference:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else "")


def _groups(groups: Sequence[Score], layout: Layout) -> str:
    label = labels_of([one.contender for one in groups])
    rows = [
        [one.cohort, one.held_out, label[one.contender], f"{len(one.values)}/{one.planned}", _cell(one)]
        for one in sorted(groups, key=lambda one: (one.cohort, one.held_out))
    ]
    return markdown(["cohort", "left out", "method", "seeds", layout.metrics[0]], rows)


def _cell(one: Score) -> str:
    """`.899 ± .012 [.850, .930]`, without what is not known."""
    return _spread(one) + _interval(one.low, one.high)


def _spread(one: Score) -> str:
    return _number(one.mean) + (f" ± {_number(one.sd)}" if math.isfinite(one.sd) else "")


def _interval(low: float, high: float, digits: int = 3) -> str:
    return f" [{_number(low, digits)}, {_number(high, digits)}]" if math.isfinite(low) else ""


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""
