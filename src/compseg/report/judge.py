"""Judge a run and show it: evaluation, pictures and the page in one call."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from compseg.cohort import Cohort
from compseg.errors import reading
from compseg.evaluation.curves import with_truth
from compseg.evaluation.metrics import prevalence
from compseg.evaluation.run import Evaluation, evaluate_run
from compseg.evaluation.shortcuts import Shortcuts, cue_values, cues, group_gap, origin_of, thinned
from compseg.evaluation.uncertainty import errors_by_spread
from compseg.file_names import file_names
from compseg.files import atomic_npy, read_checked, read_json
from compseg.inference.outputs import ENDINGS, MAPS, SPREAD
from compseg.inference.prediction import prefetched
from compseg.log import console
from compseg.memory import keep_freed
from compseg.plots.gallery import TRUTH_RGB, paint_mask
from compseg.report.explain import Inspector, importance, spread_in
from compseg.report.page import About, Judged, history_columns, map_uri, write_figures, write_report
from compseg.report.side_by_side import beside as parts_beside
from compseg.report.side_by_side import judged_at
from compseg.run_folder import HISTORY, RESULTS
from compseg.samples import Image, Mask, SampleInfo

COLLAPSE = "collapse.json"
IMAGES_FOR_CUES = 100  # of each class; each is read once, which takes about as long as an epoch


def judge(
    run: Path,
    cohort_path: str | None = None,
    device: str | torch.device = "auto",
    *,
    split: str = "auto",
    threshold: str | float | None = None,
    report: bool = True,
    uncertainty: bool = False,
    beside: Path | None = None,
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
        uncertainty: Whether to map how far activations differ between views, for the page and as `NAME_spread.npy`.
        beside: Another judged run, whose maps of the same samples the page shows as well.
        trust: What the segmenter and the head may be built from beyond the known packages.
        out: Where to write, if not to the usual place.
    """
    if beside is not None:
        judged_at(beside)  # before the work
    keep_freed()  # else the system gives each image fresh memory: a second of its time for 8 spots of 256x256x450
    inspect = partial(Inspector, uncertainty=uncertainty) if report else None
    found = evaluate_run(
        run, cohort_path, device, split=split, threshold=threshold, maps=report, trust=trust, out=out, inspect=inspect
    )
    print(summary(found))
    print(f"metrics: {found.folder / 'metrics.json'}")
    if report and found.test:
        with console().status("writing the report"):
            page = write_page(run, found, uncertainty, beside)
        print(f"report: {page}")
    return found


def write_page(run: Path, found: Evaluation, uncertainty: bool = False, beside: Path | None = None) -> Path:
    """Write pictures and `report.html` of a run that was judged with `Inspector`; the path of the latter."""
    seen, about = found.seen, about_of(run, found)
    for name, each in seen.items():
        if each.spread is not None:
            atomic_npy(found.folder / MAPS / f"{about.maps[name]}{SPREAD}", each.spread)
    judged = Judged(found.threshold, found.test, found.val, history_columns(run), seen)
    # Plotting keeps the interpreter busy; reading and the network hardly need it.
    with ThreadPoolExecutor(1, "figures") as plotter:
        figures = plotter.submit(write_figures, found.folder / "figures", judged, about.channels)
        shortcuts = shortcuts_of(found, {name: each.cues for name, each in seen.items()})
        important = importance(found, seen)
        errors = errors_of(found) if uncertainty else None
    return write_report(
        found.folder / "report.html",
        about,
        judged,
        metrics=found.metrics,
        shortcuts=shortcuts,
        figures=figures.result(),
        importance=important,
        errors=errors,
        beside=() if beside is None else parts_beside(found.folder, beside, regions_of(found)),
    )


def regions_of(found: Evaluation) -> dict[str, str]:
    """Pictures of the experts' regions, by sample."""
    truth = {item.info.name: paint_mask(item.region, item.tissue, TRUTH_RGB) for item in with_truth(found.test)}
    return {name: map_uri(picture) for name, picture in truth.items()}


def errors_of(found: Evaluation) -> dict[str, list[Any]] | None:
    """How often pixels of validation samples are wrong, by how far their views differ; None without truth."""
    val = [item for item in found.val if item.truth is not None]
    return errors_by_spread(((item, spread_in(found, item)) for item in val), found.threshold)


def about_of(run: Path, found: Evaluation) -> About:
    """What the page says of a run beside its results."""
    epoch = found.segmenter.provenance.get("epoch")
    again = [f"run={run}"] + [f"cohort={found.cohort.path}", f"out={found.folder}"] * found.external
    return About(
        title=found.title,
        samples=f"an external cohort, {found.cohort.path}" if found.external else "its test split",
        channels=found.segmenter.channels,
        kept=epoch if isinstance(epoch, int) else None,
        warnings=warnings_of(run),
        links=links_of(run, found.folder),
        maps=file_names([item.info.name for item in found.test], ENDINGS),
        command=" ".join(["python -m compseg.evaluate", *map(shlex.quote, again)]),
        config_text=read_checked(run / "config.yaml").decode(),
        environment=read_json(path, dict, "delete it") if (path := run / "environment.json").is_file() else {},
    )


def warnings_of(run: Path) -> list[str]:
    """What training has named, in sentences: collapse, and suspicions of it."""
    # Read here and not by `monitor`, which brings the trainer along.
    if not (path := run / COLLAPSE).is_file():
        return []
    with reading(path, fix := "delete it"):
        return [
            f"In training, from epoch {each['since']}: {each['words']}. Likely fix: {each['fix']}."
            for each in read_json(path, list, fix)
        ]


def links_of(run: Path, folder: Path) -> dict[str, str]:
    """Addresses of the run's files, relative to the page, by what they are."""
    results = {name: folder / name for name in RESULTS if name != "report.html"}
    paths = results | {name: run / name for name in ("config.yaml", HISTORY, "environment.json", "segmenter")}
    there = {name: path for name, path in paths.items() if path.exists()}
    return {name: quote(Path(os.path.relpath(path, folder)).as_posix()) for name, path in there.items()}


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


def shortcuts_of(found: Evaluation, seen: Mapping[str, Mapping[str, float]]) -> Shortcuts:
    """Signs of shortcuts beyond the metrics; reads up to 100 training images of each class once.

    Training samples are looked at only where the run is judged on the cohort that it was trained on.

    Args:
        found: The evaluation.
        seen: `cue_values` of the judged samples, by name.
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
    values = {**cues_of(found.cohort, train), **seen}
    return Shortcuts(origin_of(found.cohort.infos), cues(train, found.test, values), groups)


def cues_of(cohort: Cohort, infos: Sequence[SampleInfo]) -> dict[str, dict[str, float]]:
    """`cue_values` of samples, by name; while those of one are computed, the next is read."""

    def read(name: str) -> tuple[str, Image, Mask]:
        return name, cohort.image(name), cohort.tissue(name)

    with ThreadPoolExecutor(1, "read") as reader:
        samples = prefetched((partial(read, info.name) for info in infos), reader)
        return {name: cue_values(image, tissue) for name, image, tissue in samples}
