"""The evaluation of a run: the threshold from maps of validation samples, the metrics from those of test samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import track

from compseg.cohort import Cohort
from compseg.comparative import ComparativeHead
from compseg.device import pick_device
from compseg.errors import CompsegError
from compseg.evaluation.curves import SampleMap
from compseg.evaluation.tables import flat_metrics, metrics_of_splits, samples_csv, write_replicates
from compseg.evaluation.thresholds import fit_threshold
from compseg.file_names import file_names
from compseg.files import atomic_json, remove_partials
from compseg.inference import Segmenter, Threshold, load_segmenter
from compseg.inference.building import build_safe
from compseg.inference.outputs import ENDINGS, MAPS
from compseg.inference.prediction import write_map
from compseg.inference.segmenter import activation_of
from compseg.run_folder import (
    BEST,
    CHECKPOINTS,
    load_checkpoint,
    load_config,
    threshold_of,
    trains_on_pseudo_labels,
)
from compseg.samples import SampleInfo


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation of a run has found.

    Attributes:
        config: The run's resolved configuration.
        cohort: The cohort that it was judged on.
        segmenter: The run's segmenter, its threshold fitted.
        val: Maps of the validation samples, which the threshold was fitted on.
        test: Maps of the test samples; empty with `split=val`.
        metrics: What `metrics.json` holds.
    """

    config: DictConfig
    cohort: Cohort
    segmenter: Segmenter
    val: list[SampleMap]
    test: list[SampleMap]
    metrics: dict[str, float]

    @property
    def threshold(self) -> Threshold:
        """The fitted threshold."""
        assert self.segmenter.threshold is not None
        return self.segmenter.threshold


def evaluate_run(
    run: Path,
    cohort_path: str | None = None,
    device: str | torch.device = "auto",
    *,
    split: str = "test",
    maps: bool = True,
    trust: Sequence[str] = (),
) -> Evaluation:
    """Judge a run on one device and write `metrics.json`, `bootstrap.npz`, `samples.csv` and the fitted threshold.

    Args:
        run: A run folder that training has finished.
        cohort_path: Judge on another cohort than the run's own.
        device: Where to compute maps and pool them; see `pick_device`.
        split: `test`; or `val`, to look at no test sample: then there are validation metrics alone, no `samples.csv`.
        maps: Whether to write `maps/` of the test samples.
        trust: Packages or dotted names beyond the known ones that the run's segmenter and head may be built from. Its
            own config.yaml widens nothing: the folder may be a stranger's.

    Raises:
        CompsegError: If the run is unfinished, the cohort absent or of other channels, a split empty or unknown, or
            the device absent.
    """
    if split not in ("test", "val"):
        raise CompsegError(f"split={split}: expected test or val; give split=val to look at no test sample")
    config, device = load_config(run), pick_device(device)
    segmenter = load_segmenter(run, device, trust=trust)
    head = load_head(run, config, trust).to(device)
    cohort = open_cohort(config, cohort_path)
    if cohort.channels.count != segmenter.channels.count:
        raise CompsegError(
            f"{cohort.path}: has {cohort.channels.count} channels, the segmenter was trained on "
            f"{segmenter.channels.count}; prepare the cohort with the same channels"
        )
    # Before the first map, since a stranger's names may be anything.
    files = file_names([info.name for info in cohort.split("test")] if split == "test" else [], ENDINGS)
    val_maps = list(maps_of(segmenter, head, cohort, _members(cohort, "val")))
    test_maps = list(maps_of(segmenter, head, cohort, _members(cohort, "test"))) if split == "test" else []
    # Fitted to test samples it would be an upper bound and no result (docs/explanation/thresholds.md).
    threshold = fit_threshold(val_maps, threshold_of(config), probabilities=trains_on_pseudo_labels(config))
    segmenter = segmenter.with_threshold(threshold)
    found = metrics_of_splits(val_maps, test_maps, threshold)
    metrics = flat_metrics(found, threshold, segmenter.provenance["val_loss"])
    remove_partials(run)
    segmenter.save_description(run / "segmenter")
    for item in test_maps if maps else ():
        thumbnail, marked = cohort.thumbnail(item.info.name), threshold.apply(item.activation, item.tissue)
        picture = cohort.image(item.info.name) if thumbnail is None else thumbnail
        write_map(run / MAPS, files[item.info.name], picture, item.activation, marked)
    if split == "test":
        samples_csv(test_maps, threshold, run / "samples.csv", files)
    write_replicates(found, run / "bootstrap.npz")
    atomic_json(run / "metrics.json", metrics)
    return Evaluation(config, cohort, segmenter, val_maps, test_maps, metrics)


def open_cohort(config: DictConfig, path: str | None = None) -> Cohort:
    """The cohort that a run was trained on, split as it was then; or another one, split as it is."""
    if path:
        return Cohort.open(path)
    cohort = Cohort.open(config.data.path)
    return cohort.holding_out(config.data.get("held_out"), config.data.get("held_out_as", "test"))


def load_head(run: Path, config: DictConfig, trust: Sequence[str] = ()) -> ComparativeHead:
    """The run's head, with what it may have learned (a noisy-and's level, say) from the best checkpoint."""
    node = OmegaConf.to_container(config.head, resolve=True)
    # The folder may be a stranger's, and Hydra would call anything that its config.yaml names.
    head = build_safe(node, ComparativeHead, f"{run / 'config.yaml'}: head", trust=trust)
    # Most heads learn nothing, and a checkpoint of the paper's network has 250 MB.
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
    """Map samples one at a time: what a map says must not depend on which others were in its batch.

    The head is on the segmenter's device.
    """
    has_truth = any(cohort.has_truth(info.name) for info in cohort.infos)
    for info in infos:
        image, tissue = cohort.image(info.name), cohort.tissue(info.name)
        logits, truth = segmenter.logits(image, tissue), cohort.truth(info.name)
        if truth is None and not info.label and has_truth:
            truth = np.zeros_like(tissue)  # where an expert has marked disease, a healthy sample holds none
        output = head(logits, torch.from_numpy(tissue)[None, None].to(segmenter.device))
        yield SampleMap(info, activation_of(logits, tissue), tissue, truth, float(output.o[0]), float(output.x[0]))


def _members(cohort: Cohort, split: str) -> Iterable[SampleInfo]:
    infos = cohort.split(split)
    if not infos:
        raise CompsegError(
            f"{cohort.path}: no sample in split {split}, so there is nothing to judge; "
            f"give splits in the manifest or in splits.{split}"
        )
    return track(infos, description=f"{split} maps", transient=True)
