"""The top-level keys of each verb: names, types and meaning.

Values are in `conf/VERB.yaml`, whose defaults begin with `base_VERB`, so that a misspelt key in any file is refused.
What a user swaps (`_target_`) is `Any` here; `check_targets` compares those nodes with what their target takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

Flag = Any
"""True or false. As `bool`, OmegaConf would take 3 for true; `check_targets` asks for the two themselves."""


@dataclass
class MethodConfig:
    """What a method is beside its head, objective and pseudo-labels; `conf/method/NAME.yaml` fills it in."""

    name: str = MISSING  # of the method, for tables and reports
    learns_from: str = MISSING  # labels, or masks: an expert's
    maps: int = MISSING  # activation maps that the segmenter gives
    baseline: Any = MISSING  # a map without a network, in place of the model
    cam: Any = MISSING  # reads the map off the trained model, which is a classifier then
    fallback: Any = MISSING  # what replaces the keys of these names where the pseudo-labeller finds nothing


@dataclass
class EvaluationConfig:
    """How a trained run is judged."""

    split: str = MISSING  # the samples that are judged: test, val (test samples stay unseen), or none
    threshold: Any = MISSING  # auto: fitted on validation samples; or an activation in [0, 1]
    report: Flag = MISSING  # whether to write maps, pictures and report.html
    rank_by: str = MISSING  # the metric that jobs of a sweep are ranked by


@dataclass
class TrainConfig:
    """`conf/train.yaml`."""

    data: Any = MISSING  # the samples: path of a cohort, or a source to make one from, and how to load it
    preprocess: Any = MISSING  # corrections and standardisation, saved with the segmenter
    augmentation: Any = None
    model: Any = MISSING  # the segmenter
    head: Any = MISSING  # pool and transfer: from maps to one number a sample
    objective: Any = MISSING  # the loss
    regularisers: dict[str, Any] = field(default_factory=dict)  # what is added to the loss, by name
    pseudo_labels: Any = None  # marks the region that the segmenter is trained on, where the method works so
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: Any = MISSING
    scheduler: Any = None
    trainer: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: Any = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    name: str = MISSING  # what the run is called in logs and reports
    seed: int = MISSING  # of everything random
    n_init: int = 1  # seeds that are trained from, one after the other, to keep the best
    channels: Any = MISSING  # image channels; auto: the cohort's
    overwrite: Flag = False  # whether another run in the folder may be replaced


@dataclass
class Splits:
    """Fractions of the samples without a split of their own."""

    train: float = MISSING
    val: float = MISSING
    test: float = MISSING
    seed: int = MISSING  # of the assignment


@dataclass
class PrepareConfig:
    """`conf/prepare.yaml`."""

    source: Any = MISSING  # where the samples come from
    out: str = MISSING  # the cohort to write
    splits: Splits = field(default_factory=Splits)
    correction: Any = None  # of spectra, done once and stored
    tissue: Any = None  # the rule for samples without a tissue mask of their own
    dtype: str = MISSING  # of the stored pixels
    chunk: int = MISSING  # edge of a stored block, pixels
    pixel_size: float | None = None  # edge of a pixel
    pixel_unit: str | None = None  # unit of `pixel_size`
    overwrite: Flag = False  # whether an existing cohort may be replaced
    preview: Flag = False  # whether to write a page of the cohort, with a picture of each sample
    upload: str | None = None  # the address in object storage to copy it to


@dataclass
class CheckConfig:
    """`conf/check.yaml`."""

    cohort: str = MISSING  # the cohort to look through


@dataclass
class EvaluateConfig:
    """`conf/evaluate.yaml`."""

    run: str = MISSING  # the run folder to judge
    cohort: str | None = None  # another cohort than the run's own
    out: str | None = None  # where to write
    device: str = MISSING  # auto, or a torch device
    split: str = MISSING  # the samples that are judged: auto, all, train, val or test
    threshold: Any = None  # another one than that which is stored
    report: Flag = True  # whether to write maps, pictures and report.html
    uncertainty: Flag = False  # whether to map how far activations differ between views of a sample
    beside: str | None = None  # another judged run to show in the report
    trust: list[str] = field(default_factory=list)  # what a segmenter and head may be built from beyond known packages


@dataclass
class PredictConfig:
    """`conf/predict.yaml`."""

    run: str | None = None  # the run folder whose segmenter to use
    segmenter: str | None = None  # or a segmenter folder
    input: str = MISSING  # a cohort, a folder or an image
    out: str = MISSING  # the folder to write to
    overwrite: Flag = False  # whether to delete what another prediction has left there
    threshold: float | None = None  # in place of the one stored with the segmenter
    device: str = MISSING  # auto, or a torch device
    trust: list[str] = field(default_factory=list)  # further packages whose code a segmenter may name
    keys: dict[str, str | None] = field(default_factory=dict)  # variables of .npz, .mat and HDF5 files, by column
    axis: Any = None  # the channels of the images, where their files do not say
    unit: str = ""  # of that axis, or of one in the files
    channels_first: Flag | None = None  # whether arrays hold (C, H, W)
    tile: int | None = None  # largest side of what is computed at once, pixels
    overlap: int | None = None  # margin around a tile, pixels
    formats: list[str] = field(default_factory=list)  # in which the maps are exported as well
    uncertainty: Flag = False  # whether to map how far activations differ between views or members


@dataclass
class ExportConfig:
    """`conf/export.yaml`."""

    maps: str | None = None  # a folder of maps
    run: str | None = None  # or a run folder, whose segmenter is exported
    format: str = MISSING  # what to write
    out: str = MISSING  # the folder to write to
    threshold: float | None = None  # in place of the one that the maps were written with
    pixel_size: float | None = None  # edge of a pixel
    pixel_unit: str | None = None  # unit of `pixel_size`
    class_name: str | None = None  # of what is above the threshold
    offset: Any = None  # of the map in another picture
    scale: Any = None  # from the map's pixels to that picture's
    gzip: Flag | None = None  # whether to compress GeoJSON
    tma_core: Flag | None = None  # whether each map is a core of a tissue microarray
    ome_zarr: str | None = None  # version of OME-Zarr
    license: str | None = None  # of the segmenter, for its card
    trust: list[str] = field(default_factory=list)  # further packages whose code a segmenter may name


@dataclass
class ReportConfig:
    """`conf/report.yaml`."""

    runs: list[str] = MISSING  # judged runs to lay side by side
    out: str = MISSING  # the page to write


@dataclass
class SweepReportConfig:
    """`conf/sweep_report.yaml`."""

    dir: str = MISSING  # the sweep folder
    rank_by: str = MISSING  # the metric of metrics.json that jobs are ranked by


@dataclass
class DoctorConfig:
    """`conf/doctor.yaml`."""

    cohort: str | None = None  # one to train on
    overrides: Any = None  # of the trial


@dataclass
class CompareConfig:
    """`conf/compare.yaml`."""

    cohorts: Any = MISSING  # paths, sources, or entries with overrides of their own
    methods: Any = MISSING  # names, or entries with overrides of their own
    models: Any = MISSING  # likewise
    seeds: Any = MISSING  # how many, or which
    overrides: Any = None  # for all runs
    cv: str = MISSING  # what is left out in turn
    folds: int = MISSING  # of patients
    repeats: int = MISSING  # of the folds, each time others
    split: str = MISSING  # the samples that are judged
    metrics: list[str] = MISSING  # what is shown; the first ranks
    upper_bound: str = MISSING  # the method that the others are measured against
    baselines: list[str] = MISSING  # methods that any other should pass
    out: str = MISSING  # the comparison's folder
    jobs: Any = MISSING  # how many run at once
    report: Flag = False  # whether each run gets a report of its own


SCHEMAS = {
    "train": TrainConfig,
    "prepare": PrepareConfig,
    "check": CheckConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "report": ReportConfig,
    "sweep_report": SweepReportConfig,
    "compare": CompareConfig,
    "doctor": DoctorConfig,
}


def flags_of(schema: Any, above: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted keys of a schema that are true or false, and whether they may be null as well."""
    for each in fields(schema):
        node: Any = each.default_factory
        if is_dataclass(node):
            yield from flags_of(node, f"{above}{each.name}.")
        elif "Flag" in str(each.type):
            yield above + each.name, "None" in str(each.type)


def register_schemas() -> None:
    """Make `base_VERB` known to Hydra for every verb."""
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"base_{name}", node=schema)
