"""The evaluation of a run: the threshold from maps of validation samples, the metrics from those of test samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from compseg.evaluation.tables import Measured, flat_metrics, metrics_of_splits, samples_csv, write_replicates
from compseg.evaluation.thresholds import fit_threshold
from compseg.file_names import file_name, file_names, printable
from compseg.files import checked_json, read_json, remove_partials
from compseg.inference import Segmenter, Threshold, load_segmenter
from compseg.inference.building import build_safe
from compseg.inference.ensemble import Ensemble
from compseg.inference.folder import ENSEMBLE
from compseg.inference.images import Adaptation
from compseg.inference.outputs import ENDINGS, MAPS
from compseg.inference.prediction import write_map
from compseg.inference.segmenter import activation_of
from compseg.run_folder import (
    BEST,
    CHECKPOINTS,
    fingerprint_of,
    load_checkpoint,
    load_config,
    threshold_of,
    trains_on_pseudo_labels,
)
from compseg.samples import SPLITS, SampleInfo

LOG = logging.getLogger("compseg")
ABOUT = "evaluation.json"  # in a folder that is no run folder: what was judged on what


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation of a run has found.

    Attributes:
        run: The run folder.
        config: The run's resolved configuration.
        cohort: The cohort that it was judged on.
        external: Whether that is another cohort than the run was trained on.
        folder: Where the results are: the run folder, or one of their own.
        segmenter: The run's segmenter with the threshold that it was judged with.
        val: Maps of the run's validation samples; empty for an external cohort.
        test: Maps of the samples that were judged; empty with `split=val` of the run's own cohort.
        metrics: What `metrics.json` holds.
    """

    run: Path
    config: DictConfig
    cohort: Cohort
    external: bool
    folder: Path
    segmenter: Segmenter
    val: list[SampleMap]
    test: list[SampleMap]
    metrics: dict[str, float]

    @property
    def threshold(self) -> Threshold:
        """The threshold that the run was judged with."""
        assert self.segmenter.threshold is not None
        return self.segmenter.threshold

    @property
    def title(self) -> str:
        """The run, and the cohort where it is not the run's own."""
        return f"{self.run.name} on {name_of(self.cohort)}" if self.external else self.run.name


def evaluate_run(
    run: Path,
    cohort_path: str | None = None,
    device: str | torch.device = "auto",
    *,
    split: str = "auto",
    threshold: str | float | None = None,
    maps: bool = True,
    trust: Sequence[str] = (),
    out: Path | None = None,
) -> Evaluation:
    """Judge a run on one device and write `metrics.json`, `bootstrap.npz`, `samples.csv` and `maps/`.

    On the run's own cohort that goes into the run folder. Any other cohort is external: all of its samples are judged,
    with the threshold that is stored in the run's segmenter, into a folder of their own, and the run stays as it was.

    Args:
        run: A run folder that training has finished; or an ensemble of folds, which has no validation samples, and of
            its own cohort no unseen ones but test samples that a comparison with `split=val` has left aside.
        cohort_path: Where the cohort is, if not where it was when the run was trained.
        device: Where to compute maps and pool them; see `pick_device`.
        split: The samples that are judged. Of the run's own cohort `test`; or `val`, to look at no test sample: then
            there are validation metrics alone, no `samples.csv`. Of an external one `all`, or one of its splits.
            `auto`: `test` and `all`.
        threshold: How to fit the threshold again, or its value; stored in the segmenter, unless the cohort is external.
            None: the stored one; if there is none yet, it is fitted as the run's configuration says.
        maps: Whether to write `maps/` of the judged samples.
        trust: Packages or dotted names beyond the known ones that the run's segmenter and head may be built from. Its
            own config.yaml widens nothing: the folder may be a stranger's.
        out: Where to write; None: as said above, for an external cohort to `RUN_on_COHORT` beside the run folder.

    Raises:
        CompsegError: If the run is unfinished, the cohort absent, another one than its path held, or of other channels,
            a split empty or unknown, the device absent, or the folder holds something else.
    """
    if split not in ("auto", "all", *SPLITS):
        raise CompsegError(f"split={split}: expected auto, all, {', '.join(SPLITS)}")
    run, config, device = run if run.name else run.resolve(), load_config(run), pick_device(device)
    segmenter = load_segmenter(run, device, trust=trust)
    head = load_head(run, config, trust).to(device)
    cohort, external = open_cohort(run, config, cohort_path)
    if said := adaptation(cohort, segmenter).said:
        LOG.warning(printable(f"{cohort.path}: {said}"))
    judged = ("all" if external else "test") if split == "auto" else split
    ensemble = isinstance(segmenter, Ensemble)
    unseen = ("test",) if ensemble else ("test", "val")
    if not external and judged not in unseen:
        words = " or ".join(unseen)
        raise CompsegError(f"split={split}: of the run's own cohort expected {words}, which training did not see")
    folder = out or (run.with_name(file_name(f"{run.name}_on_{name_of(cohort)}")) if external else run)
    about = {"run": run.name, "cohort": str(cohort.path), "fingerprint": cohort.fingerprint, "split": judged}
    if apart := folder.resolve() != run.resolve():
        refuse_other_results(folder, about)
    only_val = judged == "val" and not external
    infos = [] if only_val else _members(cohort, judged)
    # Before the first map, since a stranger's names may be anything.
    files = file_names([info.name for info in infos], ENDINGS)
    without_val = external or ensemble  # no sample is there that the threshold might be fitted to
    val_maps = [] if without_val else _maps(segmenter, head, cohort, "val")
    test_maps = [] if only_val else _maps(segmenter, head, cohort, judged)
    fitted = _threshold(run, config, segmenter, threshold, val_maps, without_val)
    measured = metrics_of_splits(val_maps, test_maps, fitted)
    metrics = flat_metrics(measured, fitted, None if without_val else segmenter.provenance["val_loss"])
    if fitted != segmenter.threshold:
        segmenter = segmenter.with_threshold(fitted)
        if not without_val:
            segmenter.save_description(run / "segmenter")
    if apart:
        # First: a folder that a killed evaluation has left is known for what it is.
        checked_json(folder / ABOUT, about)
    found = Evaluation(run, config, cohort, external, folder, segmenter, val_maps, test_maps, metrics)
    write_results(found, measured, files, maps=maps)
    return found


def write_results(found: Evaluation, measured: Mapping[str, Measured], files: Mapping[str, str], *, maps: bool) -> None:
    """Write what an evaluation leaves but for its report.

    Args:
        found: The evaluation.
        measured: Its metrics with their replicates.
        files: What the files of each judged sample's map are called.
        maps: Whether to write them.
    """
    remove_partials(found.folder)
    for item in found.test if maps else ():
        name = item.info.name
        thumbnail, marked = found.cohort.thumbnail(name), found.threshold.apply(item.activation, item.tissue)
        picture = found.cohort.image(name) if thumbnail is None else thumbnail
        write_map(found.folder / MAPS, files[name], picture, item.activation, marked)
    if found.test:
        samples_csv(found.test, found.threshold, found.folder / "samples.csv", files)
    write_replicates(measured, found.folder / "bootstrap.npz")
    named = {"cohort": name_of(found.cohort)} if found.external else {}
    checked_json(found.folder / "metrics.json", named | found.metrics)


def adaptation(cohort: Cohort, segmenter: Segmenter) -> Adaptation:
    """How the cohort's images become those that the segmenter takes; those of its own cohort are so already."""
    values = (cohort.input.kind, cohort.input.high)
    return Adaptation.of(cohort.channels, values, segmenter, str(cohort.path), cohort.input.corrections)


def _threshold(
    run: Path,
    config: DictConfig,
    segmenter: Segmenter,
    asked: str | float | None,
    val: Sequence[SampleMap],
    without_val: bool,
) -> Threshold:
    """The threshold to judge with. Fitted to the samples that are judged it would be an upper bound and no result."""
    if without_val and isinstance(asked, str):
        raise CompsegError(
            f"threshold={asked}: is fitted to a run's own validation samples alone; leave it out, or give a number"
        )
    if asked is None and segmenter.threshold is not None:
        return segmenter.threshold
    if without_val and asked is None:
        raise CompsegError(
            f"{run}: its segmenter has no threshold yet; python -m compseg.evaluate run={run} fits it to the run's own "
            "validation samples, or give threshold=0.5, say"
        )
    how = threshold_of(config) if asked is None else asked
    fitted = fit_threshold(val, how, probabilities=trains_on_pseudo_labels(config))
    if fitted.origin == "fallback":
        LOG.warning("threshold: %s", fitted.how)
    return fitted


def open_cohort(run: Path, config: DictConfig, path: str | None = None) -> tuple[Cohort, bool]:
    """The cohort to judge a run on, and whether it is external, that is another than the run was trained on.

    By its fingerprint: a copy of the run's cohort in another place is still the run's, with the group held out that
    training held out. Runs of earlier versions know no fingerprint, there the path decides.

    Raises:
        CompsegError: There is no cohort, or the run's own path now holds another.
    """
    own, learned = str(config.data.path), fingerprint_of(config)
    cohort = Cohort.open(path or own)
    external = str(cohort.path) != own if learned is None else cohort.fingerprint != learned
    if external and path is None:
        raise CompsegError(
            f"{own}: has changed since {run} was trained on it; put the old one back, give cohort= of a copy, or "
            f"cohort={own} to judge the run on what is there now, as on any external cohort"
        )
    if external:
        return cohort, True
    if (run / ENSEMBLE).is_file() and config.data.get("held_out_as") != "val":
        raise CompsegError(
            f"{run}: its members have learned from all samples of {cohort.path}; give cohort= of another"
        )
    return cohort.holding_out(config.data.get("held_out"), config.data.get("held_out_as", "test")), False


def refuse_other_results(folder: Path, about: Mapping[str, str]) -> None:
    """Refuse a folder that holds anything but an evaluation of the same run on the same cohort.

    Raises:
        CompsegError: It holds something else.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    path = folder / ABOUT
    held = read_json(path, dict, "delete it") if path.is_file() else {}
    differing = [key for key in ("run", "fingerprint", "split") if held.get(key) != about[key]]
    if differing:
        what = f"holds an evaluation of another {' and '.join(differing)}" if held else "holds something else"
        raise CompsegError(f"{folder}: {what}; give another out=, or delete it")


def name_of(cohort: Cohort) -> str:
    """What people call a cohort: the last part of its path."""
    return str(cohort.path).rstrip("/").rpartition("/")[2].removesuffix(".zarr")


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
    adapt = adaptation(cohort, segmenter)
    has_truth = any(cohort.has_truth(info.name) for info in cohort.infos)
    for info in infos:
        image, tissue = adapt(cohort.image(info.name)), cohort.tissue(info.name)
        logits, truth = segmenter.logits(image, tissue), cohort.truth(info.name)
        if truth is None and not info.label and has_truth:
            truth = np.zeros_like(tissue)  # where an expert has marked disease, a healthy sample holds none
        output = head(logits, torch.from_numpy(tissue)[None, None].to(segmenter.device))
        yield SampleMap(info, activation_of(logits, tissue), tissue, truth, float(output.o[0]), float(output.x[0]))


def _members(cohort: Cohort, split: str) -> Sequence[SampleInfo]:
    infos = cohort.infos if split == "all" else cohort.split(split)
    if not infos:
        raise CompsegError(
            f"{cohort.path}: no sample in split {split}, so there is nothing to judge; "
            f"give splits in the manifest or in splits.{split}"
        )
    return infos


def _maps(segmenter: Segmenter, head: ComparativeHead, cohort: Cohort, split: str) -> list[SampleMap]:
    shown = track(_members(cohort, split), description=f"{split} maps", transient=True)
    return list(maps_of(segmenter, head, cohort, shown))
