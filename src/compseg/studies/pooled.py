"""Cross-validation as one number a metric: each sample judged by the run that had it left out, all folds together."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from compseg.evaluation.intervals import Floats, mean, percentile_interval, resample
from compseg.evaluation.metrics import auc_of_replicates
from compseg.evaluation.subject import load_head
from compseg.files import atomic_text, atomic_torch, csv_text, from_cell, write_checked
from compseg.inference import load_segmenter
from compseg.inference.building import targets_of
from compseg.inference.ensemble import Ensemble
from compseg.run_folder import BEST, CHECKPOINTS, load_config
from compseg.samples import SampleInfo
from compseg.studies.scores import REPLICATES, Outcome

COLUMNS = ("cohort", "model", "method", "metric", "value", "ci_low", "ci_high", "samples", "rounds")
Row = dict[str, str]
Measured = dict[str, tuple[float, Floats]]  # by metric, its value and its replicates


def write_pooled(folder: Path, outcomes: Sequence[Outcome], split: str) -> Path | None:
    """Write `pooled.csv`: metrics over the samples of all folds, with 95 % bootstrap intervals over patients.

    A round is one seed and one repeat, whose folds hold each sample once. Values and replicates are means over rounds.
    Area fractions and Dice are those at the threshold that each run has chosen inside, on its own validation samples.

    Args:
        folder: The comparison's.
        outcomes: Of its jobs, each without one fold.
        split: That was judged; of validation samples a run keeps no table.

    Returns:
        The table; None while no contender has a whole round.
    """
    contenders = dict.fromkeys((one.planned.cohort, *one.planned.contender) for one in outcomes)
    rows = []
    for contender in contenders if split == "test" else ():
        mine = [one for one in outcomes if (one.planned.cohort, *one.planned.contender) == contender]
        samples = list(rounds_of(mine))
        found = [metrics_of(each) for each in samples]
        for metric in found[0] if found else ():
            value = float(np.mean([each[metric][0] for each in found]))
            low, high = percentile_interval(np.mean([each[metric][1] for each in found], axis=0))
            shown = (round(number, 6) for number in (value, low, high))
            rows.append((*contender, metric, *shown, len(samples[0]), len(found)))
    if not rows:
        return None
    atomic_text(folder / "pooled.csv", csv_text(COLUMNS, rows))
    return folder / "pooled.csv"


def write_ensembles(folder: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """Write the segmenters of each contender's runs as one, to COHORT/MODEL/METHOD/ensemble; their folders.

    With what it takes to judge them: the configuration of the runs, and the mean of what their heads have learned.
    """
    contenders = dict.fromkeys((one.planned.cohort, *one.planned.contender) for one in outcomes)
    written = []
    for contender in contenders:
        mine = [one for one in outcomes if (one.planned.cohort, *one.planned.contender) == contender]
        if all(one.trained for one in mine):
            place = folder.joinpath(*contender, "ensemble")
            _write_ensemble(place, [one.folder for one in mine])
            written.append(place)
    return written


def _write_ensemble(place: Path, runs: Sequence[Path]) -> None:
    configs = [load_config(run) for run in runs]
    # What this comparison has trained is trusted, as in the training itself.
    trust = targets_of(OmegaConf.to_container(configs[0]))
    heads = [load_head(run, config, trust).state_dict() for run, config in zip(runs, configs, strict=True)]
    learned = {f"head.{name}": torch.stack([head[name] for head in heads]).mean(0) for name in heads[0]}
    configs[0].data.held_out = None
    write_checked(place / "config.yaml", OmegaConf.to_yaml(configs[0]))
    if learned:
        atomic_torch(place / CHECKPOINTS / BEST, {"state_dict": learned})
    Ensemble([load_segmenter(run, trust=trust) for run in runs]).save(place)


def rounds_of(outcomes: Sequence[Outcome]) -> Iterator[list[Row]]:
    """The rows of `samples.csv` of all folds of a round; rounds with a fold that is not finished are left out."""
    rounds: dict[tuple[int, str], list[Outcome]] = {}
    for one in outcomes:
        rounds.setdefault((one.planned.seed, one.planned.held_out.partition("fold")[0]), []).append(one)
    for members in rounds.values():
        tables = [one.folder / "samples.csv" for one in members]
        if all(one.finished("test") for one in members) and all(table.is_file() for table in tables):
            # In one order, whichever fold a sample is in, so that the replicates of all rounds are paired.
            yield sorted((row for table in tables for row in _rows(table)), key=lambda row: row["sample"])


def _rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: from_cell(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


def metrics_of(rows: Sequence[Row]) -> Measured:
    """Pooled metrics of the rows of `samples.csv`; those that need truth where there is some."""
    infos = [SampleInfo(row["sample"], int(row["label"]), patient=row["patient"]) for row in rows]
    labels, areas = np.array([info.label for info in infos]), np.array([float(row["area_fraction"]) for row in rows])
    weights, once = resample(infos, REPLICATES, seed=0), np.ones((1, len(infos)))
    found: Measured = {"area_auc": tuple(auc_of_replicates(areas, labels, each) for each in (once, weights))}  # type: ignore[dict-item]
    dice = np.array([float(row["dice"] or "nan") for row in rows])
    for metric, values, members in (
        ("healthy_area_fraction", areas, labels == 0),
        ("dice_mean", dice, np.isfinite(dice)),
    ):
        if members.any():
            found[metric] = (float(values[members].mean()), mean(values[members], weights[:, members]))
    return {name: (float(np.ravel(value)[0]), replicates) for name, (value, replicates) in found.items()}
