"""Judge a run and show it: evaluation, figures and the page in one call."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compseg.evaluation import SampleMap, prevalence
from compseg.evaluation.run import Evaluation, evaluate_run
from compseg.evaluation.shortcuts import Shortcuts, cue_values, cues, group_gap, origin_of, thinned
from compseg.report.figures import Spectra
from compseg.report.page import read_history, write_report
from compseg.samples import SampleInfo

PIXELS_A_SAMPLE = 200
LOOKED_AT = 100  # samples of a class whose images are read for cues


def judge(
    run: Path, cohort_path: str | None = None, device: str = "cpu", *, test: bool = True, report: bool = True
) -> Evaluation:
    """Evaluate a run, write maps, figures and `report.html` of its test samples, and say the outcome.

    Args:
        run: As the next three, see `evaluate_run`, which says what else is written and raised.
        cohort_path: Another cohort.
        device: Where to compute.
        test: Whether to look at the test samples; without them there is no report.
        report: Whether to write maps, figures and the page.
    """
    found = evaluate_run(run, cohort_path, device, test=test, maps=test and report)
    print(summary(found))
    if test and report:
        print(f"report: {write_page(run, found)}")
    return found


def write_page(run: Path, found: Evaluation) -> Path:
    """Write figures and `report.html` of a judged run; the path of the latter."""
    threshold = found.segmenter.threshold
    assert threshold is not None
    return write_report(
        run / "report.html",
        title=run.name,
        metrics=found.metrics,
        threshold=threshold,
        test_maps=found.test,
        val_maps=found.val,
        shortcuts=shortcuts_of(found),
        history=read_history(run / "history.csv"),
        references=thumbnails_of(found),
        spectra=spectra_of(found),
        config_text=(run / "config.yaml").read_text(encoding="utf-8"),
        environment=json.loads((run / "environment.json").read_text(encoding="utf-8")),
    )


def summary(found: Evaluation) -> str:
    """The outcome for the terminal: every figure of the split that was judged, with its interval."""
    split = "test" if found.test else "val"
    threshold, share = found.segmenter.threshold, prevalence(found.test or found.val)
    assert threshold is not None
    lines = [f"threshold {threshold.value:.3f} ({threshold.how})"]
    for name, value in found.metrics.items():
        if name.startswith(f"{split}/") and not name.endswith(("_ci_low", "_ci_high")):
            low, high = found.metrics.get(f"{name}_ci_low"), found.metrics.get(f"{name}_ci_high")
            interval = f"  [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
            lines.append(f"{name:28s} {value:.3f}{interval}")
    if share is not None:
        lines.append(f"{'(prevalence of disease pixels':28s} {share:.3f})")
    return "\n".join(lines)


def thumbnails_of(found: Evaluation) -> dict[str, NDArray[np.uint8]]:
    """Reference pictures of the test samples that have one."""
    pictures = {item.info.name: found.cohort.thumbnail(item.info.name) for item in found.test}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def spectra_of(found: Evaluation, seed: int = 0) -> Spectra | None:
    """Raw spectra of disease and other tissue in the disease samples (Figure S1).

    By truth, else by the thresholded map. None where the channels are no spectral axis, or one of the two kinds of
    pixel is absent.
    """
    if not found.cohort.channels.spectral:
        return None
    by_truth = any(item.truth is not None and item.truth.any() for item in found.test)
    generator = np.random.default_rng(seed)
    disease, other = [], []
    for item in found.test:
        region = _region(found, item, by_truth)
        if region is not None:
            image = found.cohort.image(item.info.name).astype(np.float32)
            disease.append(_some(image[region], generator))
            other.append(_some(image[item.tissue & ~region], generator))
    kinds = [np.concatenate(kind) if kind else np.empty((0, 0)) for kind in (disease, other)]
    if not all(len(kind) for kind in kinds):
        return None
    names = ("disease by truth", "other tissue") if by_truth else ("disease by the map", "other tissue")
    return Spectra(kinds[0], kinds[1], found.cohort.channels, names=names)


def shortcuts_of(found: Evaluation) -> Shortcuts:
    """Signs of shortcuts beyond the figures of merit; reads up to 100 training images a class once, as an epoch does.

    What was learned from is looked at only where the run is judged on the cohort that it was trained on.
    """
    groups = group_gap([*found.val, *found.test])
    if str(found.cohort.path) != str(found.config.data.path):
        return Shortcuts(None, [], groups)
    train = [info for label in (0, 1) for info in thinned(_of_class(found, label), LOOKED_AT)]
    looked_at = [*train, *(item.info for item in found.test if not item.info.label)]
    values = {
        info.name: cue_values(found.cohort.image(info.name), found.cohort.tissue(info.name)) for info in looked_at
    }
    return Shortcuts(origin_of(found.cohort.infos), cues(train, found.test, values), groups)


def _of_class(found: Evaluation, label: int) -> list[SampleInfo]:
    return [info for info in found.cohort.split("train") if info.label == label]


def _region(found: Evaluation, item: SampleMap, by_truth: bool) -> NDArray[np.bool_] | None:
    if not item.info.label:
        return None
    if by_truth:
        return item.truth & item.tissue if item.truth is not None else None
    assert found.segmenter.threshold is not None
    return found.segmenter.threshold.apply(item.activation, item.tissue)


def _some(spectra: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    return spectra[generator.permutation(len(spectra))[:PIXELS_A_SAMPLE]]
