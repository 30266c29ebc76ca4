"""The table of a study, a row a job, and the page of a sweep.

Every training run imports this module, so what needs torch, pandas or matplotlib is imported where it is used.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compseg.errors import CompsegError
from compseg.evaluation.names import lower_is_better
from compseg.file_names import printable
from compseg.files import atomic_bytes, atomic_text, csv_text
from compseg.studies.record import INTERVAL_ENDS, STATES, Record, read_records, swept_keys

if TYPE_CHECKING:
    import pandas as pd

# Table and picture are written again while jobs run, but no more than this share of the time is spent on it.
WRITING_SHARE = 0.03
# Groups of the configuration that the loss is made of.
LOSS_GROUPS = ("head", "objective", "method", "pseudo_labels", "regulariser", "regularisers")


class Writer:
    """Writes what a study leaves again and again, but not too often."""

    def __init__(self, write: Callable[[], object]) -> None:
        self.write, self.next = write, 0.0

    def soon(self) -> None:
        """Write if the last time is long enough ago."""
        start = time.monotonic()
        if start >= self.next:
            self.write()
            # By the time that it took: a table takes longer the more jobs it has.
            self.next = start + (time.monotonic() - start) / WRITING_SHARE


def frame_of(
    labels: Sequence[Mapping[str, object]], records: Sequence[Record], shown: Callable[[str], bool] = lambda _: True
) -> pd.DataFrame:
    """A row a job: what it is, its state, its metrics in full precision, why it has none; what is missing is empty."""
    import pandas as pd

    names = [name for name in dict.fromkeys(name for record in records for name in record.metrics) if shown(name)]
    rows = [
        {
            **label,
            "status": record.status,
            "epochs": record.epochs,
            "seconds": "" if record.seconds is None else record.seconds,
            **{name: record.metrics.get(name, "") for name in names},
            "why": record.why,
        }
        for label, record in zip(labels, records, strict=True)
    ]
    # Objects, because a column of whole numbers with a gap would become one of fractions.
    return pd.DataFrame(rows, dtype=object)


def sweep_frame(records: Sequence[Record], keys: Sequence[str]) -> pd.DataFrame:
    """The table of a sweep: name of the job, swept keys, then as `frame_of`."""
    labels = [{"job": record.name, **{key: record.overrides.get(key, "") for key in keys}} for record in records]
    return frame_of(labels, records)


def csv_of(frame: pd.DataFrame) -> str:
    """CSV with every digit; a value that is no number is `nan`, one that is missing is empty."""
    return csv_text(list(frame.columns), frame.itertuples(index=False, name=None))


def markdown(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "".join("| " + " | ".join(map(one_line, line)) + " |\n" for line in lines)


def one_line(value: object) -> str:
    """A value as Markdown, in a cell or a heading."""
    # What users have named something must neither end the row nor begin a tag.
    return printable(str(value)).replace("|", "\\|").replace("<", "\\<")


def summarise(sweep: Path, rank_by: str) -> list[Record]:
    """Write `sweep.csv`, `sweep.md`, `sweep.png` and `sweep.html` of a sweep, which may still be running.

    As long as no job is finished there are only the first two. Without the extra `sweep` there is no importance, and
    `sweep.md` says so.

    Args:
        sweep: The sweep's folder.
        rank_by: A metric of `metrics.json`.

    Returns:
        Its jobs.

    Raises:
        CompsegError: If the folder is no sweep, or its jobs lack the metric.
    """
    records = read_records(sweep)
    ranked, keys = rank(records, rank_by), swept_keys(records)
    atomic_text(sweep / "sweep.csv", csv_of(sweep_frame(records, keys)))
    judged = [record for record in ranked if math.isfinite(record.metric(rank_by))]
    text = sweep_page(sweep.name, records, ranked, keys, rank_by, with_picture=bool(judged))
    if judged:
        from compseg.studies.pictures import picture_of_sweep, png

        jobs = sweep_frame(judged, keys)
        atomic_bytes(sweep / "sweep.png", png(picture_of_sweep(jobs, keys, rank_by)))
        text = "\n".join([text, *_with_extra(sweep, states(records), jobs, keys, rank_by)])
    atomic_text(sweep / "sweep.md", text)
    return records


def _with_extra(sweep: Path, states: str, jobs: pd.DataFrame, keys: Sequence[str], rank_by: str) -> list[str]:
    """`sweep.html`, and the importance as Markdown; where the extra `sweep` is not installed, what is missing."""
    from compseg.studies.interactive import importance, write_interactive

    shares: dict[str, float] = {}
    parts = []
    try:
        shares = importance(jobs, keys, rank_by)
    except CompsegError as error:
        parts.append(f"{error}\n")
    if shares:
        parts.append(f"Main effects: shares of the keys in the variance of {rank_by} over {len(jobs)} jobs.\n")
        parts.append(markdown(["key", "share"], [[key, f"{share:.2f}"] for key, share in shares.items()]))
    write_interactive(sweep / "sweep.html", states, jobs, keys, rank_by, shares, warnings(keys, rank_by))
    parts.append("[The sweep to look around in](sweep.html)\n")
    return parts


def rank(records: Sequence[Record], rank_by: str) -> list[Record]:
    """Jobs with metrics, the best first, those whose metric is no number last.

    Raises:
        CompsegError: If a job lacks the metric.
    """
    values = {one.name: one.metric(rank_by) for one in records if one.status == "finished" and one.metrics}
    sign = 1 if not values or lower_is_better(rank_by) else -1
    # NaN is neither less nor more than anything, so that sorting by it would leave the others in disorder.
    places = {name: sign * value if math.isfinite(value) else math.inf for name, value in values.items()}
    return sorted((one for one in records if one.name in places), key=lambda one: places[one.name])


def better_of(metric: str) -> str:
    """`val/loss, lower is better`."""
    return f"{metric}, {'lower' if lower_is_better(metric) else 'higher'} is better"


def sweep_page(
    name: str,
    records: Sequence[Record],
    ranked: Sequence[Record],
    keys: Sequence[str],
    rank_by: str,
    *,
    with_picture: bool,
) -> str:
    """Markdown: the ranked jobs with their metrics, without intervals, and what became of the others."""
    parts = [f"# Sweep {one_line(name)}\n\n{states(records)}.\n"]
    if with_picture:
        parts.append("![](sweep.png)\n")
    if ranked:
        names = dict.fromkeys([rank_by, *(name for record in ranked for name in record.metrics)])
        shown = [name for name in names if not name.endswith(INTERVAL_ENDS)]
        rows = [
            [i, f"[{one.name}]({one.name}/report.html)", *_values(one, keys), *_short(one, shown)]
            for i, one in enumerate(ranked, 1)
        ]
        parts += [f"Ranked by {better_of(rank_by)}.\n", *(f"{line}\n" for line in warnings(keys, rank_by))]
        parts.append(markdown(["rank", "job", *keys, *shown], rows))
    if others := [record for record in records if record not in ranked]:
        rows = [[one.name, *_values(one, keys), one.status, one.epochs, one.why] for one in others]
        parts += ["Without metrics:\n", markdown(["job", *keys, "status", "epochs", "why"], rows)]
    return "\n".join(parts)


def states(records: Sequence[Record]) -> str:
    """How many jobs there are in which state."""
    counts = Counter(record.status for record in records)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(records)} job{'s' * (len(records) > 1)}: {found}"


def warnings(keys: Sequence[str], rank_by: str) -> list[str]:
    """What the reader of a ranking should know."""
    found = []
    if of_loss := [key for key in keys if key.split(".")[0] in LOSS_GROUPS and rank_by.endswith("loss")]:
        found.append(
            f"Mind: {rank_by} may be another loss where {' or '.join(of_loss)} differs; then rank by another metric."
        )
    if rank_by.startswith("test/"):
        found.append("Mind: what is chosen by the test samples has to be judged on other samples.")
    return found


def _values(record: Record, keys: Sequence[str]) -> list[str]:
    """Without the last digits of a number that a search sampled; `sweep.csv` has them."""

    def readable(value: str) -> str:
        try:
            return f"{float(value):.4g}" if len(value) > 8 else value
        except ValueError:
            return value

    return [readable(record.overrides.get(key, "")) for key in keys]


def _short(record: Record, names: Sequence[str]) -> list[str]:
    return [f"{record.metrics[name]:.4g}" if name in record.metrics else "" for name in names]
