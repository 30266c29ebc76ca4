"""What a comparison leaves as tables: `comparison.csv`, a row a job, and `comparison.md`, ranked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compseg.comparison.standings import (
    Entrant,
    Outcome,
    Place,
    Standing,
    by_group,
    lead,
    ordered,
    places,
    share_of,
    standings,
)
from compseg.files import csv_text
from compseg.sweeps.jobs import lower_is_better

KEYS = ("cohort", "model", "method", "seed", "held_out")


@dataclass(frozen=True)
class Layout:
    """What tables and picture show.

    Attributes:
        split: `val` or `test`.
        figures: Names without the split; the first ranks.
        ceiling: The method that is drawn as the ceiling.
        floors: Methods that are drawn as floors.
    """

    split: str
    figures: tuple[str, ...]
    ceiling: str
    floors: tuple[str, ...]

    @property
    def ranked_by(self) -> str:
        """The key in `metrics.json` that ranks."""
        return f"{self.split}/{self.figures[0]}"

    @property
    def apart(self) -> tuple[str, ...]:
        """Methods to compare with, which take no part in the ranking."""
        return (self.ceiling, *self.floors)


def jobs_csv(outcomes: Sequence[Outcome], split: str) -> str:
    """A row a job: what it is, its state, and every figure of the split; those of the other split are not shown."""
    names = [name for name in dict.fromkeys(n for one in outcomes for n in one.figures) if _shown(name, split)]
    rows = []
    for one in outcomes:
        state = [one.job.status, one.job.epochs, _or(one.job.seconds)] if one.job else ["waiting", 0, ""]
        figures = [one.figures.get(name, "") for name in names]
        rows.append([*(getattr(one.planned, key) for key in KEYS), *state, *figures, one.job.why if one.job else ""])
    return csv_text([*KEYS, "status", "epochs", "seconds", *names, "why"], rows)


def _shown(name: str, split: str) -> bool:
    return name.startswith((f"{split}/", "threshold", "val/loss"))


def page(name: str, outcomes: Sequence[Outcome], layout: Layout, *, with_picture: bool) -> str:
    """The comparison for people, in Markdown."""
    all_standings = standings(outcomes, layout.ranked_by)
    cohorts = list(dict.fromkeys(one.cohort for one in all_standings))
    parts = [f"# Comparison {name}\n\n{_states(outcomes)}\n"]
    if with_picture:
        parts.append("![](comparison.png)\n")
    parts.append(_how_to_read(layout))
    if len(cohorts) > 1:
        parts += ["## Overall\n", _overall(places(all_standings, layout.ranked_by, layout.apart), cohorts, outcomes)]
    for cohort in cohorts:
        parts += [f"## {cohort}\n", _cohort(outcomes, all_standings, cohort, layout)]
    if groups := by_group(outcomes, layout.ranked_by):
        parts += ["## Left-out groups\n", _groups(groups, layout)]
    if failed := [one for one in outcomes if one.job and one.job.status == "failed"]:
        parts += [
            "## Failed\n",
            markdown(["job", "why"], [[one.planned.name, one.job.why] for one in failed if one.job]),
        ]
    return "\n".join(parts)


def _states(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(one.job.status if one.job else "waiting" for one in outcomes)
    return f"{len(outcomes)} jobs: " + ", ".join(f"{count} {state}" for state, count in counts.most_common()) + "."


def _how_to_read(layout: Layout) -> str:
    better = "lower" if lower_is_better(layout.ranked_by) else "higher"
    lines = [
        f"Ranked by {layout.ranked_by}, {better} is better: mean over seeds ± standard deviation over seeds, and in "
        "brackets the 95 % bootstrap interval of the mean, seeds and patients (else samples) drawn with replacement. "
        "`to the best` is the difference to the best that is ranked, drawn in pairs: surely another where its interval "
        "leaves out 0."
    ]
    if layout.split == "val":
        lines.append("Figures of validation samples: the checkpoint and the threshold were chosen on them too.")
    else:
        lines.append("What is chosen by these figures has to be judged on other samples; `split=val` is for choosing.")
    return "\n".join(lines) + "\n"


def _overall(found: Sequence[Place], cohorts: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    label = labels([one.planned.entrant for one in outcomes])
    rows = [
        [i, label[place.entrant], _number(place.mean, 2) + _interval(place.low, place.high, 2)]
        + [f"{place.ranks[cohort]:g}" if cohort in place.ranks else "" for cohort in cohorts]
        for i, place in enumerate(found, 1)
    ]
    return markdown(["place", "method", "mean rank", *cohorts], rows)


def _cohort(outcomes: Sequence[Outcome], all_standings: Sequence[Standing], cohort: str, layout: Layout) -> str:
    label = labels([one.planned.entrant for one in outcomes])
    here = ordered([one for one in all_standings if one.cohort == cohort], layout.ranked_by)
    with_ceiling = any(math.isfinite(share_of(one, here, layout.ceiling)) for one in here)
    others = {
        figure: {one.entrant: one for one in standings(_of(outcomes, cohort), f"{layout.split}/{figure}")}
        for figure in layout.figures[1:]
    }
    others = {figure: cells for figure, cells in others.items() if any(one.values for one in cells.values())}
    ranks = {place.entrant: place.mean for place in places(here, layout.ranked_by, layout.apart)}
    best = next((one for one in here if one.entrant in ranks), None)
    rows = []
    for one in here:
        share = share_of(one, here, layout.ceiling)
        rows.append(
            [
                _rank(one, ranks, layout),
                label[one.entrant],
                f"{len(one.values)}/{one.planned}",
                cell(one),
                _gap(one, best),
            ]
            + [f"{100 * share:.0f} %" if math.isfinite(share) else ""] * with_ceiling
            + [_spread(cells[one.entrant]) for cells in others.values()]
        )
    head = ["rank", "method", "seeds", layout.figures[0], "to the best", *["of the ceiling"] * with_ceiling, *others]
    return markdown(head, rows)


def _gap(one: Standing, best: Standing | None) -> str:
    """`-0.021 [-0.034, -0.008]`: how far a method is from the best that is ranked."""
    if best is None or one is best or not math.isfinite(one.mean):
        return ""
    difference, low, high = lead(one, best)
    return f"{difference:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else "")


def _groups(groups: Sequence[Standing], layout: Layout) -> str:
    label = labels([one.entrant for one in groups])
    rows = [
        [one.cohort, one.held_out, label[one.entrant], f"{len(one.values)}/{one.planned}", cell(one)]
        for one in sorted(groups, key=lambda one: (one.cohort, one.held_out))
    ]
    return markdown(["cohort", "left out", "method", "seeds", layout.figures[0]], rows)


def _rank(one: Standing, ranks: dict[Entrant, float], layout: Layout) -> str:
    if one.entrant[1] in layout.apart:
        return "ceiling" if one.entrant[1] == layout.ceiling else "floor"
    return f"{ranks[one.entrant]:g}" if one.entrant in ranks else ""


def _of(outcomes: Sequence[Outcome], cohort: str) -> list[Outcome]:
    return [one for one in outcomes if one.planned.cohort == cohort]


def labels(entrants: Iterable[Entrant]) -> dict[Entrant, str]:
    """What entrants are called: by the method, with the model where there are several."""
    every = list(dict.fromkeys(entrants))
    several = len({model for model, _ in every}) > 1
    return {entrant: f"{entrant[1]}, {entrant[0]}" if several else entrant[1] for entrant in every}


def cell(one: Standing) -> str:
    """`.899 ± .012 [.850, .930]`, without what is not known."""
    return _spread(one) + _interval(one.low, one.high)


def _spread(one: Standing) -> str:
    return _number(one.mean) + (f" ± {_number(one.sd)}" if math.isfinite(one.sd) else "")


def _interval(low: float, high: float, digits: int = 3) -> str:
    return f" [{_number(low, digits)}, {_number(high, digits)}]" if math.isfinite(low) else ""


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _or(value: float | None) -> object:
    return "" if value is None else value


def markdown(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---" for _ in head], *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
