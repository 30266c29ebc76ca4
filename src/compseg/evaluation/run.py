"""Judging a run: maps of validation and test samples.

The threshold comes from the former, the figures of merit from the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import track

from compseg.cohort import Cohort
from compseg.comparative import ComparativeHead
from compseg.errors import CompsegError
from compseg.evaluation.sample_map import SampleMap
from compseg.evaluation.tables import figures_of_splits, metrics, samples_csv, write_replicates
from compseg.evaluation.thresholds import fit_from_labels, fit_from_probabilities, fit_from_truth, fixed
from compseg.files import atomic_json
from compseg.inference import Segmenter, Threshold, load_segmenter
from compseg.inference.prediction import write_map
from compseg.inference.segmenter import activation_of
from compseg.run_folder import BEST, CHECKPOINTS, load_checkpoint, load_config
from compseg.samples import SampleInfo


@dataclass(frozen=True)
class Evaluation:
    """What judging a run has found.

    Attributes:
        config: The run's resolved configuration.
        cohort: The cohort that it was judged on.
        segmenter: The run's segmenter, its threshold fitted.
        val: Maps of the validation samples, which the threshold was fitted on.
        test: Maps of the test samples; empty where they were not looked at.
        metrics: What `metrics.json` holds.
    """

    config: DictConfig
    cohort: Cohort
    segmenter: Segmenter
    val: list[SampleMap]
    test: list[SampleMap]
    metrics: dict[str, float]


def evaluate_run(
    run: Path, cohort_path: str | None = None, device: str = "cpu", *, test: bool = True, maps: bool = True
) -> Evaluation:
    """Judge a run on one device and write `metrics.json`, `bootstrap.npz`, `samples.csv` and the fitted threshold.

    Args:
        run: A run folder that training has finished.
        cohort_path: Judge on another cohort than the run's own.
        device: Where to compute.
        test: Whether to look at the test samples; without them there are validation figures alone and no `samples.csv`.
        maps: Whether to write `maps/` of the test samples.

    Raises:
        CompsegError: If the run is unfinished, the cohort absent or of other channels, or a split empty.
    """
    config = load_config(run)
    segmenter = load_segmenter(run, device, trust=_packages(config.model))
    head = load_head(run, config).to(device)
    cohort = open_cohort(config, cohort_path)
    _check_channels(cohort, segmenter)
    val_maps = list(maps_of(segmenter, head, cohort, _some(cohort, "val")))
    test_maps = list(maps_of(segmenter, head, cohort, _some(cohort, "test"))) if test else []
    segmenter = segmenter.with_threshold(
        fit_threshold(
            val_maps,
            config.evaluation.threshold,
            probabilities=bool(config.pseudo_labels and config.pseudo_labels.supervises),
        )
    )
    assert segmenter.threshold is not None
    figures = figures_of_splits(val_maps, test_maps, segmenter.threshold)
    found = metrics(figures, segmenter.threshold, segmenter.provenance["val_loss"])
    segmenter.save_description(run / "segmenter")
    if maps:
        write_maps(test_maps, cohort, segmenter.threshold, run / "maps")
    if test:
        samples_csv(test_maps, segmenter.threshold, run / "samples.csv")
    write_replicates(figures, run / "bootstrap.npz")
    atomic_json(run / "metrics.json", found)
    return Evaluation(config, cohort, segmenter, val_maps, test_maps, found)


def open_cohort(config: DictConfig, path: str | None = None) -> Cohort:
    """The cohort that a run was trained on, split as it was then; or another one, split as it is."""
    if path:
        return Cohort.open(path)
    cohort = Cohort.open(config.data.path)
    return cohort.holding_out(config.data.get("held_out"), config.data.get("held_out_as", "test"))


def write_maps(maps: Iterable[SampleMap], cohort: Cohort, threshold: Threshold, folder: Path) -> None:
    """Write each sample's map with its overlay and mask."""
    for item in maps:
        marked = threshold.apply(item.activation, item.tissue)
        write_map(folder, item.info.name, picture_of(cohort, item.info), item.activation, marked)


def load_head(run: Path, config: DictConfig) -> ComparativeHead:
    """The run's head, with what it may have learned (a noisy-and's level, say) from the best checkpoint."""
    head: ComparativeHead = instantiate(config.head)
    if head.state_dict():
        state = load_checkpoint(run / CHECKPOINTS / BEST)["state_dict"]
        head.load_state_dict(
            {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
        )
    return head.eval()


@torch.inference_mode()
def maps_of(
    segmenter: Segmenter, head: ComparativeHead, cohort: Cohort, infos: Iterable[SampleInfo]
) -> Iterator[SampleMap]:
    """Map samples one at a time: what a map says must not depend on which others were in its batch."""
    anyone_drew = any(cohort.has_truth(info.name) for info in cohort.infos)
    for info in infos:
        image, tissue = cohort.image(info.name), cohort.tissue(info.name)
        logits, truth = segmenter.logits(image, tissue), cohort.truth(info.name)
        if truth is None and not info.label and anyone_drew:
            truth = np.zeros_like(tissue)  # where experts drew, a healthy sample's truth is that there is nothing
        output = head(logits, torch.from_numpy(tissue)[None, None].to(segmenter.device))
        yield SampleMap(info, activation_of(logits, tissue), tissue, truth, float(output.o[0]), float(output.x[0]))


def picture_of(cohort: Cohort, info: SampleInfo) -> Any:
    """What a person would look at: the reference picture, else the image itself."""
    thumbnail = cohort.thumbnail(info.name)
    return cohort.image(info.name) if thumbnail is None else thumbnail


def fit_threshold(val: list[SampleMap], how: str | float, probabilities: bool = False) -> Threshold:
    """The threshold as configured.

    Args:
        val: Validation maps.
        how: `truth`, `probabilities`, `labels`, a number, or `auto`: by truth where there is some, else by
            probabilities where the maps hold such, else by labels.
        probabilities: Whether activations are probabilities, as after training on a pseudo-labeller's marks.

    Raises:
        CompsegError: For any other word.
    """
    if isinstance(how, int | float):
        return fixed(float(how))
    fits: dict[str, Callable[[list[SampleMap]], Threshold]] = {
        "truth": fit_from_truth,
        "probabilities": fit_from_probabilities,
        "labels": fit_from_labels,
    }
    if how == "auto":
        drawn = any(item.truth is not None and item.truth.any() for item in val)
        how = "truth" if drawn else "probabilities" if probabilities else "labels"
    if how not in fits:
        raise CompsegError(
            f"threshold={how}: expected auto, truth, probabilities, labels or an activation in [0, 1]; "
            "choose one of these"
        )
    return fits[how](val)


def _some(cohort: Cohort, which: str) -> Iterable[SampleInfo]:
    infos = cohort.split(which)
    if not infos:
        raise CompsegError(
            f"{cohort.path}: no sample in split {which}, so there is nothing to judge; "
            f"give splits in the manifest or in splits.{which}"
        )
    return track(infos, description=f"{which} maps", transient=True)


def _check_channels(cohort: Cohort, segmenter: Segmenter) -> None:
    if cohort.channels.count != segmenter.channels.count:
        raise CompsegError(
            f"{cohort.path}: has {cohort.channels.count} channels, the segmenter was trained on "
            f"{segmenter.channels.count}; prepare the cohort with the same channels"
        )


def _packages(node: Any) -> list[str]:
    """Top-level packages of all targets in a node; the run is the user's own, so they are trusted."""
    if isinstance(node, DictConfig):
        own = [str(node["_target_"]).split(".")[0]] if "_target_" in node else []
        return own + [package for value in node.values() for package in _packages(value)]
    return []
