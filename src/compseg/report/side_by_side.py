"""Runs side by side: metrics with paired differences, what was set differently, curves, maps of the same samples."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image as Pillow

from compseg.errors import CompsegError, reading, require
from compseg.evaluation.intervals import Floats, percentile_interval
from compseg.evaluation.metrics import auc, roc_curve
from compseg.evaluation.names import MAP_METRICS, lower_is_better
from compseg.file_names import file_name
from compseg.files import from_cell, read_checked, read_json
from compseg.inference.outputs import MAPS
from compseg.report.page import photo_uri
from compseg.report.parts import Cell, Part, Shown, finite, number
from compseg.report.pictures import spread as evenly
from compseg.report.study import write_study
from compseg.run_folder import load_config, read_history

PICTURE_PIXELS = 3_000_000  # of all maps together: a page stays below one and a half megabytes
SIDE = 192
FEW = 4  # curves that can be told apart
STYLES = (("ink", ""), ("red", "dashed"), ("blue", "dotted"), ("gold", ""))
BESIDE = 12  # samples that a report shows beside another run's
CAMS = ("cam", "gradcam", "gradcam_pp")
NEVER = ("hydra", "asked", "name", "cohort_fingerprint")  # keys that say nothing of how runs differ


@dataclass(frozen=True)
class Judged:
    """A run that was judged, as its folder has it.

    Attributes:
        folder: The run folder, or another one that `evaluate` wrote.
        name: What the page calls it.
    """

    folder: Path
    name: str

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Of `metrics.json`."""
        return read_json(judged_at(self.folder), dict, "evaluate the run again")

    @cached_property
    def samples(self) -> dict[str, dict[str, str]]:
        """Rows of `samples.csv` by sample; empty where no test sample was looked at."""
        path = self.folder / "samples.csv"
        if not path.is_file():
            return {}
        with reading(path, "evaluate the run again"):
            rows = list(csv.DictReader(io.StringIO(read_checked(path).decode(), newline=""), strict=True))
            return {from_cell(row["sample"]): row for row in rows}

    @cached_property
    def replicates(self) -> Mapping[str, Floats]:
        """`(R,)` bootstrap replicates of each metric."""
        path = self.folder / "bootstrap.npz"
        if not path.is_file():
            return {}
        with reading(path, "evaluate the run again"), np.load(path) as stored:
            return dict(stored)

    @property
    def config(self) -> dict[str, str]:
        """Every key of its configuration; empty in a folder of its evaluation on another cohort."""
        if not (self.folder / "config.yaml").is_file():
            return {}
        return _flat(load_config(self.folder))

    def value(self, sample: str, column: str) -> float:
        """A number of a sample; NaN where there is none."""
        return float(self.samples.get(sample, {}).get(column) or "nan")

    def picture(self, sample: str) -> Path:
        """Its overlay."""
        row = self.samples[sample]
        # The folder may be a stranger's, and a file's name lead out of it.
        return self.folder / MAPS / f"{file_name(from_cell(row.get('file') or row['sample']))}.png"


def judged_at(folder: Path) -> Path:
    """The metrics of a judged run.

    Raises:
        CompsegError: It was not judged.
    """
    path = folder / "metrics.json"
    require(path.is_file(), f"{folder}: was not judged; run python -m compseg.evaluate run={folder}")
    return path


def write_side_by_side(runs: Sequence[Path], out: Path) -> Path:
    """Write a page that lays judged runs side by side.

    Args:
        runs: Two or more folders that `evaluate` wrote; where samples are the same, differences are paired.
        out: The page.

    Raises:
        CompsegError: Fewer than two runs, or one was not judged.
    """
    require(len(runs) > 1, f"runs={[str(run) for run in runs]}: expected two or more; give runs=[A,B]")
    judged = [Judged(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    parts = [_metrics(judged), _settings(judged), _curves(judged, out), *_samples(judged)]
    same = "on the same samples" if _paired(judged) else "on different samples: differences of them are not paired"
    lead = f"{', '.join(each.name for each in judged)}, judged {same}."
    return write_study(out, "compseg: runs side by side", " · ".join(each.name for each in judged), lead, parts)


def beside(folder: Path, other: Path, regions: Mapping[str, str]) -> list[Part]:
    """What another run made of the samples that a run was judged on, for the report of the latter.

    Args:
        folder: Of the results that are reported.
        other: A folder that `evaluate` wrote.
        regions: Pictures of the experts' regions, by sample.

    Raises:
        CompsegError: The other was not judged, or on none of these samples.
    """
    runs = [Judged(run, name) for run, name in zip((folder, other), _names([folder, other]), strict=True)]
    metrics, parts = _metrics(runs), _samples(runs)
    require(bool(parts), f"beside={other}: was judged on none of the samples of {folder}; give a run on them")
    method = runs[1].config.get("method.name", "")
    metrics.words = (
        f"{runs[1].name} (method={method}) on the same samples. {metrics.words}" if method else metrics.words
    )
    if method in CAMS:
        metrics.words += (
            " Its map is read off a classifier that was trained on the same labels. Whether training through the head "
            "marks the region better than that is the question the paper leaves open; this is one pair of runs, and "
            "compseg.compare asks it of several seeds."
        )
    order = [row[0].text for row in parts[0].rows]
    shown = [
        each._replace(pictures=[*each.pictures, ("the expert's region", regions.get(each.name, ""))])
        for each in _gallery(runs, evenly(order, BESIDE))
    ]
    words = (
        f"{len(shown)} of {len(order)} samples, evenly from those on which they differ most to those on which least."
    )
    samples = replace(parts[0], words="", head=(), rows=())
    return [metrics, samples, Part("Maps of both", words, gallery=shown)]


def _names(runs: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [run.resolve().parts for run in runs]
    most = max(map(len, parts))
    for count in range(1, most + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise CompsegError(f"{runs[0]}: is given twice; give different runs")


def _flat(node: Any, key: str = "") -> dict[str, str]:
    plain: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node
    if not isinstance(plain, dict) or not plain:
        return {key: str(plain)}
    found: dict[str, str] = {}
    for name, value in plain.items():
        if key or name not in NEVER:
            found |= _flat(value, f"{key}.{name}" if key else str(name))
    return found


def _paired(runs: Sequence[Judged]) -> bool:
    return all(list(each.samples) == list(runs[0].samples) for each in runs)


def _metrics(runs: Sequence[Judged]) -> Part:
    """A row for each metric: its value in each run, and each other run's difference to the first."""
    names = [
        f"{split}/{name}"
        for split in ("test", "val")
        for name in MAP_METRICS
        if any(f"{split}/{name}" in each.metrics for each in runs)
    ]
    paired = _paired(runs)
    rows = [
        [
            _named(name),
            *(_value(each, name) for each in runs),
            *(_gap(each, runs[0], name, paired) for each in runs[1:]),
        ]
        for name in [*names, "threshold"]
    ]
    head = ["metric", *(each.name for each in runs), *(f"{each.name} less {runs[0].name}" for each in runs[1:])]
    words = "In brackets 95 % bootstrap intervals"
    words += "; of differences in pairs, so that an interval that leaves out 0 is a sure difference." if paired else "."
    return Part("Metrics", words, head=head, rows=rows)


def _named(metric: str) -> Cell:
    known = MAP_METRICS.get(metric.rpartition("/")[2])
    better = "" if known is None else f"{known.description}; {'lower' if known.lower_is_better else 'higher'} is better"
    return Cell(metric, tip=better)


def _value(run: Judged, metric: str) -> Cell:
    value, low, high = (run.metrics.get(f"{metric}{end}") for end in ("", "_ci_low", "_ci_high"))
    if value is None:
        return Cell("")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return Cell(f"{value:.3f}{interval}", float(value), tip=repr(value))


def _gap(run: Judged, first: Judged, metric: str, paired: bool) -> Cell:
    if metric not in run.metrics or metric not in first.metrics:
        return Cell("")
    gap = run.metrics[metric] - first.metrics[metric]
    if not paired or metric not in run.replicates or metric not in first.replicates:
        return Cell(f"{gap:+.3f}", gap)
    low, high = percentile_interval(run.replicates[metric] - first.replicates[metric])
    if low <= 0 <= high:
        verdict = "no sure difference"
    else:
        verdict = f"{run.name if (gap < 0) == lower_is_better(metric) else first.name} is better"
    return Cell(f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]", gap, tip=verdict)


def _settings(runs: Sequence[Judged]) -> Part:
    """The keys whose values differ."""
    configs = [each.config for each in runs]
    keys = [
        key
        for key in dict.fromkeys(key for each in configs for key in each)
        if len({each.get(key) for each in configs}) > 1
    ]
    rows = [[Cell(key), *(Cell(each.get(key, "(not there)")) for each in configs)] for key in keys]
    words = "Keys of the configuration whose values differ." if keys else "Nothing was set differently."
    return Part("Settings", words, head=["key", *(each.name for each in runs)] if keys else (), rows=rows)


def _curves(runs: Sequence[Judged], out: Path) -> Part:
    """ROC and loss of the first few runs, and links to the reports."""
    part, styled = Part("Curves and reports"), list(zip(runs[:FEW], STYLES, strict=False))
    if roc := [{**line, **_line(*style)} for run, style in styled if (line := _roc(run))]:
        unit = {"min": 0, "max": 1}
        axes = {"x": {"label": "1 - specificity", **unit}, "y": {"label": "sensitivity", **unit}}
        words = "ROC over test samples, scored by area fraction at each run's own threshold."
        part.add("roc", words, {"series": roc, **axes})
    if loss := [{**line, **_line(*style)} for run, style in styled if (line := _loss(run))]:
        axes = {"x": {"label": "epoch"}, "y": {"label": "validation loss"}}
        words = "Validation loss by epoch. Losses of different objectives are not comparable."
        part.add("loss", words, {"series": loss, **axes})
    part.head, part.rows = ("run", "report", "threshold"), [_row(run, out) for run in runs]
    return part


def _line(colour: str, dash: str) -> dict[str, Any]:
    return {"kind": "line", "colour": colour, "dash": dash}


def _roc(run: Judged) -> dict[str, Any] | None:
    """Of samples, by the share of their tissue that is marked; None with one class alone."""
    labels = np.array([int(row["label"]) for row in run.samples.values()])
    if not 0 < labels.sum() < len(labels):
        return None
    scores = np.array([run.value(name, "area_fraction") for name in run.samples])
    x, y = roc_curve(scores, labels)
    return {"name": f"{run.name}, AUC {auc(scores, labels):.3f}", "x": x.tolist(), "y": y.tolist()}


def _loss(run: Judged) -> dict[str, Any] | None:
    """Of validation samples by epoch; None where the run has no history."""
    if not (history := read_history(run.folder)):
        return None
    x, y = (finite(float(row.get(key) or "nan") for row in history) for key in ("epoch", "val/loss"))
    return {"name": run.name, "x": x, "y": y}


def _row(run: Judged, out: Path) -> list[Cell]:
    threshold = number(run.metrics.get("threshold"))
    return [Cell(run.name, tip=str(run.folder)), _link(run.folder / "report.html", out), threshold]


def _link(path: Path, out: Path) -> Cell:
    if not path.is_file():
        return Cell("none")
    return Cell("report.html", href=quote(Path(os.path.relpath(path.resolve(), out.resolve().parent)).as_posix()))


def _samples(runs: Sequence[Judged]) -> list[Part]:
    """The samples that all runs were judged on: a chart and a table of them, and their maps."""
    common = [name for name in runs[0].samples if all(name in each.samples for each in runs)]
    if not common:
        return []
    scored = any(np.isfinite(run.value(name, "dice")) for run in runs for name in common)
    column, word = ("dice", "Dice") if scored else ("area_fraction", "area fraction")
    spread = {name: np.ptp([run.value(name, "area_fraction") for run in runs]) for name in common}
    order = sorted(common, key=lambda name: -spread[name])
    table = Part("Samples", "The samples on which the runs differ most in marked area come first.")
    table.head = ["sample", "label", *(f"{title}, {run.name}" for title in ("area fraction", "Dice") for run in runs)]
    table.rows = [
        [Cell(name), Cell(_word(runs[0], name))]
        + [number(run.value(name, key), ".4f") for key in ("area_fraction", "dice") for run in runs]
        for name in order
    ]
    table.add(
        "pairs", f"{word} of each sample: {runs[0].name} across, the others up.", _pairs(runs, common, column, word)
    )
    return [
        table,
        Part("Maps", "The same samples; each run's map at its own threshold.", gallery=_gallery(runs, order)),
    ]


def _word(run: Judged, name: str) -> str:
    return "disease" if int(run.samples[name]["label"]) else "healthy"


def _pairs(runs: Sequence[Judged], names: Sequence[str], column: str, word: str) -> dict[str, Any]:
    """Each sample as a dot: the first run's number across, another's up; on the diagonal they are the same."""
    series: list[dict[str, Any]] = [
        {"name": "the same", "x": [0, 1], "y": [0, 1], "kind": "line", "colour": "grey", "dash": "dashed"}
    ]
    for run, (colour, _) in zip(runs[1:FEW], STYLES[1:], strict=False):
        x, y = ([each.value(name, column) for name in names] for each in (runs[0], run))
        tips = [f"{name}\n{runs[0].name}: {a:.3f}\n{run.name}: {b:.3f}" for name, a, b in zip(names, x, y, strict=True)]
        series.append(
            {"name": run.name, "x": finite(x), "y": finite(y), "kind": "dots", "colour": colour, "tips": tips}
        )
    unit = {"min": 0, "max": 1}
    return {
        "series": series,
        "x": {"label": f"{word}, {runs[0].name}", **unit},
        "y": {"label": f"{word}, others", **unit},
    }


def _gallery(runs: Sequence[Judged], order: Sequence[str]) -> list[Shown]:
    most = max(1, PICTURE_PIXELS // (len(runs) * SIDE**2))
    return [
        Shown(
            name,
            bool(int(runs[0].samples[name]["label"])),
            "",
            [(_caption(run, name), _overlay(run, name)) for run in runs],
        )
        for name in order[:most]
    ]


def _caption(run: Judged, name: str) -> str:
    dice = run.value(name, "dice")
    marked = f"{run.name}: {100 * run.value(name, 'area_fraction'):.1f} % marked"
    return f"{marked}, Dice {dice:.3f}" if np.isfinite(dice) else marked


def _overlay(run: Judged, name: str) -> str:
    path = run.picture(name)
    if not path.is_file():
        return ""
    with reading(path, "evaluate the run again with report=true"), Pillow.open(path) as picture:
        return photo_uri(np.asarray(picture.convert("RGB")), SIDE)
