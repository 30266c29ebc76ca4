"""Judge a run and show it: evaluation, pictures and the page in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compseg.evaluation.curves import SampleMap
from compseg.evaluation.metrics import prevalence
from compseg.evaluation.run import Evaluation, evaluate_run
from compseg.evaluation.shortcuts import Shortcuts, cue_values, cues, group_gap, origin_of, thinned
from compseg.files import read_checked, read_json
from compseg.plots.figures import Spectra
from compseg.report.page import history_columns, write_report

SPECTRA_A_SAMPLE = 200
IMAGES_FOR_CUES = 100  # of each class; each is read once, which takes about as long as an epoch


def judge(
    run: Path,
    cohort_path: str | None = None,
    device: str | torch.device = "auto",
    *,
    split: str = "auto",
    threshold: str | float | None = None,
    report: bool = True,
    trust: Sequence[str] = (),
    out: Path | None = None,
) -> Evaluation:
    """Evaluate a run, write maps, pictures and `report.html` of the judged samples, and print the outcome.

    Args:
        run: As the next four, see `evaluate_run`, which says what else is written and raised.
        cohort_path: Where the cohort is.
        device: Where to compute.
        split: Samples; where no test sample is looked at, there is no report.
        threshold: Another one than that which is stored.
        report: Whether to write maps, pictures and the page.
        trust: What the segmenter and the head may be built from beyond the known packages.
        out: Where to write, if not to the usual place.
    """
    found = evaluate_run(run, cohort_path, device, split=split, threshold=threshold, maps=report, trust=trust, out=out)
    print(summary(found))
    print(f"metrics: {found.folder / 'metrics.json'}")
    if report and found.test:
        print(f"report: {write_page(run, found)}")
    return found


def write_page(run: Path, found: Evaluation) -> Path:
    """Write pictures and `report.html` of a judged run; the path of the latter."""
    thumbnails = {item.info.name: found.cohort.thumbnail(item.info.name) for item in found.test}
    return write_report(
        found.folder / "report.html",
        title=found.title,
        samples=f"an external cohort, {found.cohort.path}" if found.external else "its test split",
        metrics=found.metrics,
        threshold=found.threshold,
        test_maps=found.test,
        val_maps=found.val,
        shortcuts=shortcuts_of(found),
        history=history_columns(run),
        thumbnails={name: picture for name, picture in thumbnails.items() if picture is not None},
        spectra=spectra_of(found),
        config_text=read_checked(run / "config.yaml").decode(),
        environment=read_json(path, dict, "delete it") if (path := run / "environment.json").is_file() else {},
    )


def summary(found: Evaluation) -> str:
    """The outcome for the terminal: every metric of the split that was judged, with its interval."""
    split, share = "test" if found.test else "val", prevalence(found.test or found.val)
    lines = [f"{found.title}: {len(found.test)} samples of {found.cohort.path}"] if found.external else []
    lines += [f"threshold {found.threshold.value:.3f} ({found.threshold.how})"]
    for name, value in found.metrics.items():
        if name.startswith(f"{split}/") and not name.endswith(("_ci_low", "_ci_high")):
            low, high = found.metrics.get(f"{name}_ci_low"), found.metrics.get(f"{name}_ci_high")
            interval = f"  [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
            lines.append(f"{name:28s} {value:.3f}{interval}")
    if share is not None:
        lines.append(f"{'(prevalence of disease pixels':28s} {share:.3f})")
    return "\n".join(lines)


def spectra_of(found: Evaluation, seed: int = 0) -> Spectra | None:
    """Raw spectra of disease and other tissue in the disease samples (Figure S1).

    By truth, else by the thresholded map. None where the channels are no spectral axis, or one of the two kinds of
    pixel is absent.
    """
    if not found.cohort.channels.spectral:
        return None
    by_truth = any(item.truth is not None and item.truth.any() for item in found.test)
    generator = np.random.default_rng(seed)
    disease: list[NDArray[np.float32]] = []
    other: list[NDArray[np.float32]] = []
    for item in found.test:
        region = _region(found, item, by_truth)
        if region is not None:
            image = found.cohort.image(item.info.name)
            for kind, mask in ((disease, region), (other, item.tissue & ~region)):
                rows, columns = mask.nonzero()
                some = generator.permutation(len(rows))[:SPECTRA_A_SAMPLE]
                kind.append(image[rows[some], columns[some]].astype(np.float32))
    kinds = [np.concatenate(kind) if kind else np.empty((0, 0)) for kind in (disease, other)]
    if not all(len(kind) for kind in kinds):
        return None
    names = ("disease by truth", "other tissue") if by_truth else ("disease by the map", "other tissue")
    return Spectra(kinds[0], kinds[1], found.cohort.channels, names=names)


def _region(found: Evaluation, item: SampleMap, by_truth: bool) -> NDArray[np.bool_] | None:
    if not item.info.label or (by_truth and item.truth is None):
        return None
    return item.region if by_truth else found.threshold.apply(item.activation, item.tissue)


def shortcuts_of(found: Evaluation) -> Shortcuts:
    """Signs of shortcuts beyond the metrics; reads up to 100 training images of each class once.

    Training samples are looked at only where the run is judged on the cohort that it was trained on.
    """
    # Together, because the test split is often a single array.
    groups = group_gap([*found.val, *found.test])
    # Training samples of another cohort are not those that this run has learned from.
    if found.external:
        return Shortcuts(None, [], groups)
    train = found.cohort.split("train")
    train = [
        info for label in (0, 1) for info in thinned([info for info in train if info.label == label], IMAGES_FOR_CUES)
    ]
    # No disease test samples: in those disease itself may be the reason for a higher x.
    read = [*train, *(item.info for item in found.test if not item.info.label)]
    values = {info.name: cue_values(found.cohort.image(info.name), found.cohort.tissue(info.name)) for info in read}
    return Shortcuts(origin_of(found.cohort.infos), cues(train, found.test, values), groups)
