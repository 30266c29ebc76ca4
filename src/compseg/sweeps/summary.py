"""What a sweep leaves in its folder: `sweep.csv`, `sweep.md`, `sweep.png` and `sweep.html`."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from compseg.errors import CompsegError
from compseg.files import atomic_bytes, atomic_text, csv_text
from compseg.sweeps.jobs import Job, figure_of, lower_is_better, read_jobs, swept_keys

# Groups of the configuration that the loss is made of.
LOSS_GROUPS = ("head", "objective", "method", "pseudo_labels", "regulariser", "regularisers")
STATES = ("finished", "pruned", "failed", "running", "unfinished")


def summarise(sweep: Path, rank_by: str) -> list[Job]:
    """Write the table of a sweep twice, for programs and for people, its picture and a page to look around in.

    It may still be running. Where no job is finished yet there is no picture and no page; without the extra `sweep`
    there is no page and no importance, and the table says so.

    Args:
        sweep: The sweep's folder.
        rank_by: A figure of `metrics.json`.

    Returns:
        Its jobs.

    Raises:
        CompsegError: If the folder is no sweep, or its jobs lack the figure.
    """
    jobs = read_jobs(sweep)
    ranked = rank(jobs, rank_by)
    keys = swept_keys(jobs)
    atomic_text(sweep / "sweep.csv", table(jobs, keys))
    judged = [job for job in ranked if math.isfinite(figure_of(job, rank_by))]
    text = page(sweep.name, jobs, ranked, keys, rank_by, with_picture=bool(judged))
    if judged:
        atomic_bytes(sweep / "sweep.png", draw(judged, keys, rank_by))
        text = "\n".join([text, *_beyond_the_core(sweep, jobs, judged, keys, rank_by)])
    atomic_text(sweep / "sweep.md", text)
    return jobs


def _beyond_the_core(
    sweep: Path, jobs: Sequence[Job], judged: Sequence[Job], keys: Sequence[str], rank_by: str
) -> list[str]:
    """Importance and `sweep.html`, as Markdown; what is missing where the extra `sweep` is not installed."""
    from compseg.sweeps.importance import importance  # late: nothing that a training run needs
    from compseg.sweeps.interactive import interactive_page

    shares: dict[str, float] = {}
    parts = []
    try:
        shares = importance(judged, keys, rank_by)
        if shares:
            parts.append(f"Main effects: shares of the keys in the variance of {rank_by} over {len(judged)} jobs.\n")
            parts.append(_markdown(["key", "share"], [[key, f"{share:.2f}"] for key, share in shares.items()]))
    except CompsegError as error:
        parts.append(f"{error}\n")
    try:
        atomic_text(sweep / "sweep.html", interactive_page(sweep.name, states(jobs), judged, keys, rank_by, shares))
        parts.append("[The sweep to look around in](sweep.html)\n")
    except CompsegError as error:
        parts.append(f"{error}\n")
    return parts


def rank(jobs: Sequence[Job], rank_by: str) -> list[Job]:
    """Jobs with figures, the best first, those where the figure is no number last.

    Raises:
        CompsegError: If a job lacks the figure.
    """
    sign = 1 if lower_is_better(rank_by) else -1

    def place(job: Job) -> float:
        value = figure_of(job, rank_by)
        return sign * value if math.isfinite(value) else math.inf

    return sorted((job for job in jobs if job.status == "finished" and job.figures), key=place)


def draw(judged: Sequence[Job], keys: Sequence[str], rank_by: str) -> bytes:
    """The picture as PNG, of jobs whose figure is finite, the best first."""
    from compseg.sweeps.picture import picture  # late: matplotlib, which no training needs

    stream = io.BytesIO()
    picture(judged, keys, rank_by).savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def table(jobs: Sequence[Job], keys: Sequence[str]) -> str:
    """CSV with a row a job: name, swept keys, state and every figure, in full precision."""
    names = list(dict.fromkeys(name for job in jobs for name in job.figures or {}))
    rows = []
    for job in jobs:
        figures = [(job.figures or {}).get(name, "") for name in names]
        values = [job.overrides.get(key, "") for key in keys]
        rows.append([job.name, *values, job.status, job.epochs, _or(job.seconds), *figures, job.why])
    return csv_text(["job", *keys, "status", "epochs", "seconds", *names, "why"], rows)


def page(
    name: str, jobs: Sequence[Job], ranked: Sequence[Job], keys: Sequence[str], rank_by: str, *, with_picture: bool
) -> str:
    """Markdown: the ranked jobs with their figures, without intervals, and the others with what became of them."""
    parts = [f"# Sweep {name}\n\n{states(jobs)}.\n"]
    if with_picture:
        parts.append("![](sweep.png)\n")
    if ranked:
        better = "lower" if lower_is_better(rank_by) else "higher"
        parts.append(f"Ranked by {rank_by}, {better} is better.\n")
        parts += [f"{line}\n" for line in warnings(keys, rank_by)]
        parts.append(_ranked_rows(ranked, keys, rank_by))
    others = [job for job in jobs if job not in ranked]
    if others:
        parts.append("Without figures:\n")
        rows = [[_link(job), *_values(job, keys), job.status, job.epochs, job.why] for job in others]
        parts.append(_markdown(["job", *keys, "status", "epochs", "why"], rows))
    return "\n".join(parts)


def states(jobs: Sequence[Job]) -> str:
    """How many jobs there are in which state."""
    counts = Counter(job.status for job in jobs)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(jobs)} job{'s' * (len(jobs) > 1)}: {found}"


def warnings(keys: Sequence[str], rank_by: str) -> list[str]:
    """What the reader of a ranking should mind."""
    found = []
    if of_loss := [key for key in keys if key.split(".")[0] in LOSS_GROUPS and rank_by.endswith("loss")]:
        found.append(
            f"Mind: {rank_by} may be another loss where {' or '.join(of_loss)} differs; then rank by another figure."
        )
    if rank_by.startswith("test/"):
        found.append("Mind: what is chosen by the test samples has to be judged on other samples.")
    return found


def _ranked_rows(ranked: Sequence[Job], keys: Sequence[str], rank_by: str) -> str:
    names = list(dict.fromkeys([rank_by, *(name for job in ranked for name in job.figures or {})]))
    names = [name for name in names if not name.endswith(("_ci_low", "_ci_high"))]
    rows = [
        [place, _link(job), *_values(job, keys), *(_short((job.figures or {}).get(name)) for name in names)]
        for place, job in enumerate(ranked, 1)
    ]
    return _markdown(["rank", "job", *keys, *names], rows)


def _markdown(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    lines = [head, ["---" for _ in head], *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _link(job: Job) -> str:
    return f"[{job.name}]({job.name}/report.html)" if job.status == "finished" and job.figures else job.name


def _values(job: Job, keys: Sequence[str]) -> list[str]:
    return [_readable(job.overrides.get(key, "")) for key in keys]


def _readable(value: str) -> str:
    """Without the last digits of a number that was drawn; sweep.csv has them."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _or(value: float | None) -> object:
    return "" if value is None else value
