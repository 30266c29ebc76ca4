"""A training run from configuration to extracted segmenter, in the order in which it happens."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from compseg.batches.datamodule import CohortData
from compseg.cohort import Cohort
from compseg.comparative import Sum
from compseg.errors import CompsegError
from compseg.faults.signals import StopSignals
from compseg.files import atomic_json, atomic_text
from compseg.inference import Segmenter
from compseg.log import log, quiet_libraries
from compseg.monitor import Diagnostics, Finding, History, read_findings
from compseg.monitor.dashboards import Dashboards
from compseg.preprocessing import fit_standardisation, resolve_rule
from compseg.run_folder import BEST, CHECKPOINTS, best_metric, load_checkpoint
from compseg.samples import Channels
from compseg.training.fitting import fit
from compseg.training.module import CompSegNet, SchedulerFactory
from compseg.training.restarts import detector_of, give_up, seed_of
from compseg.training.seeding import SeedEachStep
from compseg.training.starts import best_of, keep, starts_of
from compseg.training.step import settle_step, speed_up
from compseg.training.trainer import Trainer

# A polynomial of degree 4 would take most of a shorter spectrum away.
FOR_A_BASELINE = 16
# Without a spectrum shape has to tell, which takes a wider view.
DEPTH_FOR_PICTURES = 3
# Area under the ROC of held-out labels: of spectra .77 and more, of grey pictures up to .66 (docs/lab-log.md).
FOUND = 0.7
# What was asked for by name stays there beside what a method has otherwise.
ADDED_TO = ("regularisers", "callbacks")


def train(
    cfg: DictConfig, run: Path, signals: StopSignals | None = None, dashboards: Dashboards | None = None
) -> torch.device | None:
    """Train as configured and leave the extracted segmenter in the run folder.

    Args:
        cfg: `conf/train.yaml`, composed. What depends on the cohort is filled in.
        run: The run folder.
        signals: Those that ask the run to stop; None: none are caught.
        dashboards: Where scalars and pictures go, beside the run folder; None: nowhere.

    Returns:
        The device that it trained on, in the process that continues with the evaluation (rank zero); None in others.

    Raises:
        CompsegError: If the cohort, the configuration or the checkpoint to resume from is at fault.
    """
    quiet_libraries()
    dashboards, signals = dashboards or Dashboards(), signals or StopSignals(run)
    data: CohortData = instantiate(cfg.data)
    data.prepare_data()
    settle(cfg, data.cohort)
    goes_on = train_on(data, cfg, run, signals, dashboards)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # the ranks part here: rank zero evaluates alone
    return goes_on


def train_on(
    data: CohortData, cfg: DictConfig, run: Path, signals: StopSignals, dashboards: Dashboards
) -> torch.device | None:
    """Train on prepared data as a complete configuration says; otherwise as `train`."""
    findings, seed = read_findings(run) if cfg.trainer.resume else [], cfg.seed
    while True:
        if cfg.n_init > 1:
            return train_starts(data, cfg, run, signals, dashboards)
        data.seed = cfg.seed = seed_of(seed, sum(finding.restarted for finding in findings))
        trainer = attempt(cfg, run, data, signals, dashboards, findings)
        if trainer is None:
            continue
        detector = detector_of(trainer)
        if detector is None or not detector.restarting:
            break
        findings, cfg.trainer.resume = detector.findings, None
        if trainer.is_global_zero:
            give_up(run, findings)
    if trainer.is_global_zero:
        extract(build_module(cfg), cfg, data.cohort, run)  # anew: of a trained one, this rank may have a share only
    return trainer.strategy.root_device if trainer.is_global_zero else None


def train_starts(
    data: CohortData, cfg: DictConfig, run: Path, signals: StopSignals, dashboards: Dashboards
) -> torch.device | None:
    """Train from several seeds, each in a folder of its own, and make the best the run's.

    By the figure that best epochs are chosen by, as a rule the lowest `val/loss`, which knows labels alone.

    Returns:
        As `train`.

    Raises:
        CompsegError: As `train`; or `trainer.resume` names a checkpoint, of which each start has its own.
    """
    parts, device = starts_of(cfg, run), None
    for number, (folder, part) in enumerate(parts.items(), 1):
        log(f"start {number} of {len(parts)}: seed {part.seed}")
        device = train_on(data, part, folder, signals, dashboards)
    if device:
        figures = {folder: best_metric(load_checkpoint(folder / CHECKPOINTS / BEST)) for folder in parts}
        best = best_of(figures, OmegaConf.select(cfg, "callbacks.best_and_last.mode", default="min"))
        log(f"best epochs: {', '.join(f'{figure:.4f}' for figure in figures.values())}; start {best.name} is kept")
        keep(best, run)
        extract(build_module(parts[best]), parts[best], data.cohort, run)  # anew: it names its run
    return device


def attempt(
    cfg: DictConfig,
    run: Path,
    data: CohortData,
    signals: StopSignals,
    dashboards: Dashboards,
    findings: Sequence[Finding],
) -> Trainer | None:
    """Build all that the seed has a part in, and train it.

    None if the pseudo-labeller finds nothing: `cfg` then says how to go on.

    Args:
        cfg: `conf/train.yaml`, complete.
        run: The run folder.
        data: Prepared.
        signals: Those that ask the run to stop.
        dashboards: Where scalars and pictures go, beside the run folder.
        findings: What earlier attempts of the run have named.
    """
    pl.seed_everything(cfg.seed, verbose=False)
    module = build_module(cfg)
    with_cam(module.segmenter, plain(cfg))  # made here once, so that what it misses is said before training
    trainer = build_trainer(cfg, run, dashboards)
    if detector := detector_of(trainer):
        detector.findings = list(findings)
    checkpoint = trainer.checkpoint_to_resume()
    data.with_truth = module.objective.needs_truth and not module.trains_on_pseudo_labels
    data.trainer = trainer  # so that samples are kept where it trains; its fit would tell too late
    data.setup()
    fit_standardisation(module.preprocess, data.training_tissue())
    fit_pseudo_labels(module, data)
    if finds_nothing(module) and cfg.fallback is not None:
        fall_back(cfg)
        return None
    fit_segmenter(module, data)
    if trainer.is_global_zero:
        record(cfg, run)
    dashboards.describe(plain(cfg))
    speed_up(module, trainer)
    fit(trainer, module, data, checkpoint, signals)
    return trainer


def settle(cfg: DictConfig, cohort: Cohort) -> None:
    """Fill in what the cohort decides, with the reason said aloud.

    The number of channels, the default network's depth, and corrections left to `auto`. A method without a network
    puts its floor for the model.
    """
    cfg.channels = cohort.channels.count
    cfg.depth = DEPTH_FOR_PICTURES if pictures(cohort.channels) else 1
    if cfg.floor is not None:
        cfg.model, cfg.floor = cfg.floor, None
    if cfg.preprocess.corrections == "auto":
        cfg.preprocess.corrections, chosen = corrections_for(cohort.channels)
        log(f"preprocess.corrections=auto: {chosen}")
    settle_step(cfg, cohort)


def pictures(channels: Channels) -> bool:
    """Whether images are grey or colour pictures rather than spectra."""
    return not channels.spectral and channels.count < FOR_A_BASELINE


def corrections_for(channels: Channels) -> tuple[list[dict[str, Any]], str]:
    """The corrections that channels call for, as configuration, and the reason in words."""
    snv = {"_target_": "compseg.preprocessing.StandardNormalVariate"}
    if not channels.spectral:
        return [], "none, for channels without a spectral axis"
    if channels.count < FOR_A_BASELINE:
        return [snv], "standard normal variate, for a spectral axis"
    detrend = {"_target_": "compseg.preprocessing.Detrend", "channels": channels.count}
    return [detrend, snv], "detrend, then standard normal variate, for a spectral axis"


def build_module(cfg: DictConfig) -> CompSegNet:
    """Instantiate segmenter, head, objective, preprocessing, optimizer and schedule, and join them."""
    objective = instantiate(cfg.objective)
    if cfg.regularisers:
        objective = Sum({"objective": objective, **instantiate(cfg.regularisers)})
    return CompSegNet(
        segmenter=instantiate(cfg.model),
        head=instantiate(cfg.head),
        objective=objective,
        preprocess=instantiate(cfg.preprocess),
        pseudo_labels=instantiate(cfg.pseudo_labels),
        optimizer=instantiate(cfg.optimizer),
        scheduler=_scheduler_factory(cfg.scheduler),
        augmentations=instantiate(cfg.augmentation),
        seed=cfg.seed,
        config=plain(cfg),
    )


def fit_pseudo_labels(module: CompSegNet, data: CohortData) -> None:
    """Let the pseudo-labeller, if there is one, look at the preprocessed training samples."""
    if (pseudo_labels := module.pseudo_labels) is None:
        return
    pseudo_labels.fit(training_samples(module.preprocess, data), len(data.train), module.seed)
    sees = "contrasts within samples" if pseudo_labels.own else "samples as they are"
    found = f"finds {pseudo_labels.share:.1%} of the disease samples' tissue to differ"
    proof = f"tells held-out labels with an AUC of {pseudo_labels.held_out_auc:.2f}"
    log(
        f"pseudo-labels: {found}, which {proof}; the network sees {sees}"
        + (" and learns it" if pseudo_labels.supervises else "")
    )


def finds_nothing(module: CompSegNet) -> bool:
    """Whether what the pseudo-labeller marks tells held-out labels hardly better than a coin."""
    return module.pseudo_labels is not None and module.pseudo_labels.held_out_auc < FOUND


def fall_back(cfg: DictConfig) -> None:
    """Replace parts of the configuration by the method's fallback, for a pseudo-labeller that finds nothing."""
    log(f"below {FOUND:.2f}: method={cfg.method} goes on without the pseudo-labeller")
    for key, node in cfg.fallback.items():
        if key in ADDED_TO:
            OmegaConf.update(cfg, key, node, force_add=True)
        else:
            cfg[key] = node
    cfg.fallback = None


def fit_segmenter(module: CompSegNet, data: CohortData) -> None:
    """Let a segmenter that is fitted, or starts from what it finds, look too; it is one with a method `fit`."""
    if callable(fit := getattr(module.segmenter, "fit", None)):
        fit(training_samples(module.network_input, data), len(data.train), module.seed)
        log(f"model: fitted, {module.segmenter}")


def training_samples(
    seen: Callable[[Tensor, Tensor], Tensor], data: CohortData
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """What is seen `(C, H, W)` of each training sample, its tissue `(1, H, W)` and its label, one at a time."""
    for (image, tissue), info in zip(data.training_tissue(), data.train.infos, strict=True):
        yield seen(image[None], tissue[None])[0], tissue, info.label


def _scheduler_factory(node: DictConfig | None) -> SchedulerFactory | None:
    if node is None:
        return None
    make: Callable[..., Any] = instantiate(node)
    # A one-cycle schedule must know its length, which only the trainer does; a step schedule takes no such argument.
    length_matters = "total_steps" in node

    def factory(optimizer: torch.optim.Optimizer, total_steps: int | None) -> Any:
        if not length_matters:
            return make(optimizer)
        if total_steps is None:
            raise CompsegError(
                f"scheduler={node['_target_'].rpartition('.')[2]}: needs the length of training, which has none; "
                "give trainer.max_epochs, or scheduler=constant"
            )
        return make(optimizer, total_steps=total_steps)

    return factory


def build_trainer(cfg: DictConfig, run: Path, dashboards: Dashboards) -> Trainer:
    """The trainer with the run's own callbacks (history, seeding) and those that are configured."""
    callbacks = [
        SeedEachStep(cfg.seed),
        Diagnostics(),  # before those that read it
        # Before the checkpoint: a run killed between the two repeats an epoch, where it would lose a row otherwise.
        History(str(run / "history.csv")),
        *instantiate(cfg.callbacks).values(),
    ]
    trainer: Trainer = instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=dashboards.loggers or False,
        default_root_dir=str(run),
        # In a log file a progress bar is noise; the history says a line an epoch there.
        enable_progress_bar=cfg.trainer.enable_progress_bar and sys.stderr.isatty(),
        _convert_="object",
    )
    return trainer


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with interpolations resolved, as plain dicts, lists and numbers."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def record(cfg: DictConfig, run: Path) -> None:
    """Write `config.yaml` (resolved) and `environment.json` before anything can go wrong."""
    atomic_text(run / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain(cfg))))
    atomic_json(run / "environment.json", environment())


def environment() -> dict[str, Any]:
    """Versions and hardware, plain values; no names of people or machines."""
    packages = ("compseg", "torch", "pytorch-lightning", "hydra-core", "torchmetrics", "zarr", "numpy")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def extract(module: CompSegNet, cfg: DictConfig, cohort: Cohort, run: Path) -> Segmenter:
    """Take the segmenter of the best epoch out of the CompSegNet.

    It is saved, with all that prediction needs, to `run/segmenter`.
    """
    best = load_checkpoint(run / CHECKPOINTS / BEST)
    module.load_state_dict(best["state_dict"])
    config = plain(cfg)
    model, model_node = with_cam(module.segmenter, config)
    segmenter = Segmenter(
        model=model,
        preprocess=module.preprocess,
        model_node=model_node,
        preprocess_node=config["preprocess"],
        channels=cohort.channels,
        tissue_rule=resolve_rule(cohort.tissue_rule, cohort.channels),
        dtype=cohort.dtype,
        pseudo_labels=module.pseudo_labels,
        pseudo_labels_node=config["pseudo_labels"],
        provenance={
            "run": run.name,
            "epoch": int(best["epoch"]),
            "val_loss": best_metric(best),
            "seed": cfg.seed,
            "compseg": _version("compseg"),
        },
    )
    segmenter.save(run / "segmenter")
    return segmenter


def with_cam(segmenter: nn.Module, config: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """What makes the map, and how to build it.

    The segmenter itself, or what the method reads its map off the segmenter with.

    Raises:
        CompsegError: What that needs is not there.
    """
    if config["cam"] is None:
        return segmenter, config["model"]
    node = {key: value for key, value in config["cam"].items() if key != "_partial_"}
    return instantiate(config["cam"])(segmenter), {**node, "net": config["model"]}
