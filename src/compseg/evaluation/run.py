"""The evaluation of a run: the threshold from maps of validation samples, the metrics from those of test samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor

from compseg.cohort import Cohort
from compseg.comparative import ComparativeHead
from compseg.errors import CompsegError
from compseg.evaluation.curves import SampleMap
from compseg.evaluation.subject import ABOUT, Subject, adaptation, name_of
from compseg.evaluation.tables import Measured, flat_metrics, metrics_of_splits, samples_csv, write_replicates
from compseg.evaluation.thresholds import fit_threshold
from compseg.file_names import file_names
from compseg.files import checked_json, remove_partials
from compseg.inference import Segmenter, Threshold
from compseg.inference.outputs import ENDINGS, MAPS
from compseg.inference.prediction import prefetched, write_map
from compseg.inference.segmenter import activation_of
from compseg.plots.overlay import RGB, as_rgb
from compseg.run_folder import threshold_of, trains_on_pseudo_labels
from compseg.samples import Image, Mask, SampleInfo

LOG = logging.getLogger("compseg")


@dataclass(frozen=True)
class Mapped:
    """A sample that has just been mapped, with what is in memory only until the next is.

    Attributes:
        item: Its map.
        stored: `(H, W, C)`, its image as the cohort holds it.
        image: `(H, W, C)`, the same with the channels and values that the segmenter takes.
        given: `(n, C, H, W)`, what the network has read.
    """

    item: SampleMap
    stored: Image
    image: Image
    given: Tensor


# By `map`: a loop's variable would hold the image of one sample while the next is read.
_item = attrgetter("item")
# From the judged run and its threshold to what is seen of each judged sample.
Inspect = Callable[[Subject, Threshold], Callable[[Mapped], Any]]


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
        seen: What was seen of each judged sample's image when it was mapped, by name; empty where nobody looked.
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
    seen: dict[str, Any] = field(default_factory=dict)

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
    inspect: Inspect | None = None,
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
        inspect: Looks at each judged sample while its image is in memory, so that it is read once.

    Raises:
        CompsegError: If the run is unfinished, the cohort absent, another one than its path held, or of other channels,
            a split empty or unknown, the device absent, or the folder holds something else.
    """
    subject = Subject.of(run, cohort_path, device, split=split, trust=trust, out=out)
    subject.check()
    # Before the first map, since a stranger's names may be anything.
    files = file_names([info.name for info in subject.infos], ENDINGS)
    val_maps = _maps(subject, "val") if subject.has_val else []
    fitted = _threshold(subject, threshold, val_maps)
    test_maps, pictures, seen = _judged(subject, maps, inspect and inspect(subject, fitted))
    measured = metrics_of_splits(val_maps, test_maps, fitted)
    metrics = flat_metrics(measured, fitted, subject.segmenter.provenance["val_loss"] if subject.has_val else None)
    segmenter = _with_threshold(subject, fitted)
    if subject.apart:
        # First: a folder that a killed evaluation has left is known for what it is.
        checked_json(subject.folder / ABOUT, subject.about)
    found = Evaluation(
        run=subject.run,
        config=subject.config,
        cohort=subject.cohort,
        external=subject.external,
        folder=subject.folder,
        segmenter=segmenter,
        val=val_maps,
        test=test_maps,
        metrics=metrics,
        seen=seen,
    )
    write_results(found, measured, files, pictures)
    return found


def write_results(
    found: Evaluation, measured: Mapping[str, Measured], files: Mapping[str, str], pictures: Mapping[str, RGB]
) -> None:
    """Write what an evaluation leaves but for its report.

    Args:
        found: The evaluation.
        measured: Its metrics with their replicates.
        files: What the files of each judged sample's map are called.
        pictures: What is shown under the maps of the samples whose maps are written, by name.
    """
    remove_partials(found.folder)
    for item in found.test:
        if (picture := pictures.get(name := item.info.name)) is not None:
            marked = found.threshold.apply(item.activation, item.tissue)
            write_map(found.folder / MAPS, files[name], picture, item.activation, marked)
    if found.test:
        samples_csv(found.test, found.threshold, found.folder / "samples.csv", files)
    write_replicates(measured, found.folder / "bootstrap.npz")
    named = {"cohort": name_of(found.cohort)} if found.external else {}
    checked_json(found.folder / "metrics.json", named | found.metrics)


def _threshold(subject: Subject, asked: str | float | None, val: Sequence[SampleMap]) -> Threshold:
    """The threshold to judge with. Fitted to the samples that are judged it would be an upper bound and no result."""
    if not subject.has_val and isinstance(asked, str):
        raise CompsegError(
            f"threshold={asked}: is fitted to a run's own validation samples alone; leave it out, or give a number"
        )
    if asked is None and subject.segmenter.threshold is not None:
        return subject.segmenter.threshold
    if not subject.has_val and asked is None:
        run = subject.run
        raise CompsegError(
            f"{run}: its segmenter has no threshold yet; python -m compseg.evaluate run={run} fits it to the run's own "
            "validation samples, or give threshold=0.5, say"
        )
    how = threshold_of(subject.config) if asked is None else asked
    fitted = fit_threshold(val, how, probabilities=trains_on_pseudo_labels(subject.config))
    if fitted.origin == "fallback":
        LOG.warning("threshold: %s", fitted.how)
    return fitted


def _with_threshold(subject: Subject, threshold: Threshold) -> Segmenter:
    """The segmenter with a threshold, which the run keeps where it was judged on samples of its own."""
    if threshold == subject.segmenter.threshold:
        return subject.segmenter
    segmenter = subject.segmenter.with_threshold(threshold)
    if subject.has_val:
        segmenter.save_description(subject.run / "segmenter")
    return segmenter


def maps_of(
    segmenter: Segmenter, head: ComparativeHead, cohort: Cohort, infos: Iterable[SampleInfo]
) -> Iterator[SampleMap]:
    """Map samples one at a time: what a map says must not depend on which others were in its batch.

    The head is on the segmenter's device.
    """
    return map(_item, mapped_samples(segmenter, head, cohort, infos))


def mapped_samples(
    segmenter: Segmenter, head: ComparativeHead, cohort: Cohort, infos: Iterable[SampleInfo]
) -> Iterator[Mapped]:
    """The same with the images; whoever drops a sample before the next lets that one have its memory.

    While one is mapped, the next is read.
    """
    adapt = adaptation(cohort, segmenter)
    has_truth = any(cohort.has_truth(info.name) for info in cohort.infos)
    with ThreadPoolExecutor(1, "read") as reader:
        read = prefetched((partial(_read, cohort, info, has_truth) for info in infos), reader)
        yield from starmap(partial(_mapped, segmenter, head, adapt), read)


def _read(cohort: Cohort, info: SampleInfo, has_truth: bool) -> tuple[SampleInfo, Image, Mask, Mask | None]:
    """A sample's image, tissue and truth."""
    image, tissue, truth = cohort.image(info.name), cohort.tissue(info.name), cohort.truth(info.name)
    if truth is None and not info.label and has_truth:
        truth = np.zeros_like(tissue)  # where an expert has marked disease, this holds none
    return info, image, tissue, truth


@torch.inference_mode()
def _mapped(
    segmenter: Segmenter,
    head: ComparativeHead,
    adapt: Callable[[Image], Image],
    info: SampleInfo,
    stored: Image,
    tissue: Mask,
    truth: Mask | None,
) -> Mapped:
    given = segmenter.network_input(image := adapt(stored), tissue)
    output = head(logits := segmenter.logits_of(given), torch.from_numpy(tissue)[None, None].to(segmenter.device))
    item = SampleMap(info, activation_of(logits, tissue), tissue, truth, float(output.o[0]), float(output.x[0]))
    return Mapped(item, stored, image, given)


def _maps(subject: Subject, split: str) -> list[SampleMap]:
    return list(map(_item, _mapped_in(subject, split)))


def _mapped_in(subject: Subject, split: str) -> Iterator[Mapped]:
    shown = track(subject.members(split), description=f"{split} maps", transient=True)
    return mapped_samples(subject.segmenter, subject.head, subject.cohort, shown)


def _judged(
    subject: Subject, maps: bool, inspect: Callable[[Mapped], Any] | None
) -> tuple[list[SampleMap], dict[str, RGB], dict[str, Any]]:
    """The judged samples' maps; with `maps` the pictures under them; and what is seen of their images."""
    found, pictures, seen = [], {}, {}
    for mapped in _mapped_in(subject, subject.split) if subject.infos else ():
        found.append(item := mapped.item)
        name = item.info.name
        if maps:
            thumbnail = subject.cohort.thumbnail(name)
            pictures[name] = as_rgb(mapped.stored) if thumbnail is None else thumbnail
        if inspect is not None:
            seen[name] = inspect(mapped)
        del mapped  # so that the next sample gets its memory
    return found, pictures, seen
