"""The page of a cohort, before training: counts, spectra by group, problems, and each sample with its quality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from compseg.cohort import Cohort, Problem, find_problems
from compseg.cohort.quality import Quality, quality_of
from compseg.file_names import file_names
from compseg.files import atomic_bytes, atomic_text
from compseg.log import console
from compseg.plots.cohort import sample_preview, spectra_by_group
from compseg.plots.style import file_of
from compseg.preprocessing.pipeline import short_name
from compseg.preprocessing.tissue import amide_weights
from compseg.report.page import data_uri, fill
from compseg.samples import SPLITS, SampleInfo

EMBEDDED = 6_000_000  # bytes of pictures in the page, which base64 makes a third more; further ones are files beside it
SAMPLED = 2000  # spectra of a sample that are enough for its range


def write_cohort_page(cohort: Cohort, folder: Path) -> Path:
    """Write `cohort.html`, one file that needs nothing else, and a picture of each sample in `samples/`.

    Args:
        cohort: Complete.
        folder: Made if it is absent.

    Returns:
        The page.
    """
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    files = file_names([info.name for info in cohort.infos])
    cards, room = [], EMBEDDED
    sums: dict[str, Any] = {}
    for info in track(cohort.infos, "Preview", console=console()):
        image, tissue = cohort.image(info.name), cohort.tissue(info.name)
        quality, spectra = quality_of(image, tissue, cohort.channels), image[tissue].astype(np.float32)
        content = _picture(cohort, quality, tissue, spectra)
        atomic_bytes(folder / "samples" / f"{files[info.name]}.png", content)
        room -= len(content)
        where = data_uri("image/png", content) if room > 0 else f"samples/{files[info.name]}.png"
        cards.append({"info": info, "quality": quality, "picture": where, "embedded": room > 0})
        if len(spectra):
            total, count = sums.get(info.group, (0.0, 0))
            sums[info.group] = total + spectra.sum(0, dtype=np.float64), count + len(spectra)
    means = {name or "(no group)": total / count for name, (total, count) in sorted(sums.items())}
    figure = data_uri("image/png", file_of(spectra_by_group(means, cohort.channels))) if means else ""
    page = folder / "cohort.html"
    atomic_text(page, _page(cohort, cards, figure, find_problems(cohort.path, progress=True)))
    return page


def _picture(cohort: Cohort, quality: Quality, tissue: NDArray[np.bool_], spectra: NDArray[np.float32]) -> bytes:
    some = spectra[:: max(1, len(spectra) // SAMPLED)]
    named = "area of amide I" if amide_weights(cohort.channels) is not None else "mean over channels"
    return file_of(sample_preview(quality.level, tissue, some, cohort.channels, named), dpi=80)


def _page(cohort: Cohort, cards: Sequence[Any], figure: str, problems: Sequence[Problem]) -> str:
    infos = cohort.infos
    counts = {
        "class": _counts(infos, lambda info: info.class_name or ("disease" if info.label else "healthy")),
        "group": _counts(infos, lambda info: info.group or "(no group)"),
        "label": _counts(infos, lambda info: "disease" if info.label else "healthy"),
    }
    return fill(
        "cohort.html",
        cohort=cohort,
        title=Path(str(cohort.path)).name,
        patients=len({info.patient for info in infos if info.patient}),
        counts=counts,
        splits=SPLITS,
        cards=cards,
        figure=figure,
        problems=problems,
        before=[short_name(node) for node in cohort.input.corrections],
    )


def _counts(infos: Sequence[SampleInfo], key: Any) -> dict[str, dict[str, int]]:
    """How many samples of each kind each split has."""
    found = Counter((key(info), info.split) for info in infos)
    return {kind: {split: found[kind, split] for split in SPLITS} for kind in sorted({kind for kind, _ in found})}
