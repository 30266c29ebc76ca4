"""Every value that was left to `auto`, resolved by the cohort and the machine: a new configuration, and the reasons.

By rule and not by a stopwatch, so that the same run resolves alike each time; measured in docs/research/performance.md.
A value that was given stays. Three values wait until the pseudo-labels are fitted: `resolve_by_pseudo_labels`.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from compseg.batches.orientation import Orientation
from compseg.cohort import Cohort
from compseg.comparative import FisherPseudoLabels, PseudoLabels
from compseg.errors import CompsegError
from compseg.models.blocks import PRIOR_UNKNOWN
from compseg.preprocessing.pipeline import with_axis
from compseg.samples import Channels
from compseg.training.fit import MEMORY_FORMATS
from compseg.training.trainer import number_of_devices

# A polynomial of degree 4 would take most of a shorter spectrum away.
LONG_SPECTRUM = 16
# Of a picture, at most; for one or three the encoder of model=pretrained has weights.
PICTURE_CHANNELS = 4
# Without a spectrum shape has to tell, which takes a wider view (docs/research/lab-log.md).
DEPTH_FOR_PICTURES, DEPTH_FOR_SPECTRA = 3, 1
# Side in pixels of the pictures that the pretrained encoder has learned from, about.
SIDE_OF_PHOTOGRAPHS = 256
# Where an encoder that has may read a picture: the segmenter's, and the pseudo-labeller's.
MAGNIFIES = ("model.magnify", "pseudo_labels.features.magnify")
# Where nothing is known of the smallest share, a transfer that rises up to the end of x.
ALPHA_UNKNOWN = 1.0
# Where a segmenter may have its `prior`: its own, or that of the network behind a stem.
PRIORS = ("model.prior", "model.net.prior")
# Steps; of the paper's, each saved 5 ms on an H200, and compiling took 10 to 30 s (docs/research/performance.md).
WORTH_COMPILING = 4000
# Weights, head and objective are in float32; autocast lets the network alone compute in less.
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Choice(NamedTuple):
    """A value that was chosen, and why."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Resolved:
    """A configuration without `auto`.

    Attributes:
        cfg: The new configuration; the one that was asked for is unchanged.
        asked: What was asked for, by the dotted key of what was resolved.
        choices: With their reasons.
    """

    cfg: DictConfig
    asked: dict[str, Any]
    choices: tuple[Choice, ...] = ()

    @property
    def reasons(self) -> str:
        """The choices and why they were made, in words; empty where nothing was left to `auto`."""
        return ", ".join(f"{key}={_shown(value)} ({why})" for key, value, why in self.choices if why)

    @property
    def short(self) -> list[str]:
        """The choices that change what is learned, or that make it fast: not those that leave all as it is."""
        return [
            f"{key.rpartition('.')[2]}={_shown(value)}"
            for key, value, why in self.choices
            if why and value not in (None, "32-true", "channels_last")
        ]


def resolve(cfg: DictConfig, cohort: Cohort) -> Resolved:
    """Resolve every `auto` of a composed configuration.

    Args:
        cfg: `conf/train.yaml`, composed; it is not changed.
        cohort: Whose samples are trained on.

    Raises:
        CompsegError: `channels` is not the cohort's number, or there is no such precision, compile mode or
            memory format.
    """
    cfg = copy.deepcopy(cfg)
    if cfg.method.baseline is not None:
        cfg.model, cfg.method.baseline = cfg.method.baseline, None
    by_rule = [*_of_channels(cfg, cohort.channels), *_of_size(cfg, cohort), *_of_orientation(cfg, cohort)]
    by_rule += _of_the_step(cfg, cohort)
    resolved = _chosen(cfg, [*by_rule, *([] if cfg.pseudo_labels else _prior(cfg, None))])
    _require("precision", str(resolved.cfg.trainer.precision), PRECISIONS)
    _require("compile", resolved.cfg.trainer.compile, (None, *COMPILE_MODES))
    _require("memory_format", resolved.cfg.trainer.memory_format, tuple(MEMORY_FORMATS))
    return resolved


def advice(cfg: DictConfig, channels: Channels) -> str | None:
    """What would suit the cohort better than the default, in words; None where nothing would, or a choice was made."""
    by_spectra = cfg.method.name == "compseg" and OmegaConf.select(cfg, "model.magnify") is None
    if channels.spectral or channels.count > PICTURE_CHANNELS or not by_spectra:
        return None
    return (
        "the default is made for spectra, and these are pictures: experiment=pictures starts from an encoder that has "
        "learned from photographs (docs/how-to/pictures.md)"
    )


def resolve_by_pseudo_labels(cfg: DictConfig, pseudo_labels: PseudoLabels | None) -> Resolved:
    """Resolve what the pseudo-labels decide.

    `pseudo_labels.neighbourhood: auto`, the one that tells held-out labels best; `head.alpha: auto`, the smallest share
    of the tissue that is expected to be disease in a disease sample; and `model.prior: auto`, where targets are a few
    pixels their share of what is learned from.

    Args:
        cfg: Resolved but for this; it is not changed.
        pseudo_labels: Fitted; None: there are none.
    """
    choices = []
    if isinstance(pseudo_labels, FisherPseudoLabels) and OmegaConf.select(cfg, "pseudo_labels.neighbourhood") == "auto":
        why = f"AUC of held-out labels by side: {_by_side(pseudo_labels)}"
        choices.append(Choice("pseudo_labels.neighbourhood", pseudo_labels.neighbourhood, why))
    if OmegaConf.select(cfg, "head.alpha") == "auto":
        choices.append(_alpha(pseudo_labels))
    choices += _prior(cfg, pseudo_labels)
    return _chosen(cfg, choices) if choices else Resolved(cfg, {})


def _by_side(pseudo_labels: FisherPseudoLabels) -> str:
    return "; ".join(f"{side}: {auc:.2f}" for side, auc in pseudo_labels.tried.items())


def _alpha(pseudo_labels: PseudoLabels | None) -> Choice:
    if pseudo_labels is None:
        return Choice("head.alpha", ALPHA_UNKNOWN, "no pseudo-labels to measure the share of disease by")
    # Rounded: more digits would only be harder to repeat by hand.
    share = max(round(pseudo_labels.low_share, 3), 0.001)
    return Choice("head.alpha", share, "less is marked in a tenth of the disease samples")


def _prior(cfg: DictConfig, pseudo_labels: PseudoLabels | None) -> list[Choice]:
    """Where the activation of the untrained network is to be."""
    prior, why = PRIOR_UNKNOWN, ""
    if pseudo_labels is not None and pseudo_labels.small and _learns_pixels(cfg, pseudo_labels):
        # From .5 a network spends its steps on calling all tissue healthy: pixel AP .24, and .77 from here
        # (docs/research/lab-log.md). Half of the samples of a batch are healthy.
        prior = max(round(float(pseudo_labels.share) / 2, 4), 0.0001)
        why = f"targets of a few pixels: {prior:.2%} of the tissue that is learned from"
    return [Choice(key, prior, why) for key in PRIORS if OmegaConf.select(cfg, key) == "auto"]


def _learns_pixels(cfg: DictConfig, pseudo_labels: PseudoLabels) -> bool:
    """Whether every pixel has a target; a map pooled from next to nothing would have next to no gradient."""
    return pseudo_labels.supervises or cfg.method.learns_from == "masks"


def _chosen(cfg: DictConfig, choices: list[Choice]) -> Resolved:
    """A copy with the choices made."""
    cfg, asked = copy.deepcopy(cfg), {key: OmegaConf.select(cfg, key) for key, _, _ in choices}
    for key, value, _ in choices:
        # `optimizer.fused` is a key that the configuration does not have.
        with open_dict(cfg):
            OmegaConf.update(cfg, key, value, merge=False)
    return Resolved(cfg, asked, tuple(choices))


def _of_channels(cfg: DictConfig, channels: Channels) -> Iterator[Choice]:
    """What the cohort's channels decide."""
    corrections, why = _corrections(cfg, channels)
    corrections, after = with_axis(corrections, channels, instantiate)
    if cfg.channels not in ("auto", after.count):
        has = "the cohort has" if after.count == channels.count else "after its corrections the network reads"
        raise CompsegError(f"channels={cfg.channels}: {has} {after.count}; leave the key out")
    if cfg.channels == "auto":
        yield Choice("channels", after.count, "")
    if OmegaConf.select(cfg, "model.depth") == "auto":
        pictures = not channels.spectral and channels.count < LONG_SPECTRUM
        depth = DEPTH_FOR_PICTURES if pictures else DEPTH_FOR_SPECTRA
        yield Choice("model.depth", depth, "for pictures, where shape has to tell" if pictures else "for spectra")
    if corrections or why:  # also where `auto` is no correction at all
        yield Choice("preprocess.corrections", corrections, why)


def _corrections(cfg: DictConfig, channels: Channels) -> tuple[list[dict[str, Any]], str]:
    """The corrections that were asked for, and why they were chosen; that is empty where they were given."""
    given = OmegaConf.select(cfg, "preprocess.corrections")
    if given == "auto":
        return corrections_for(channels)
    nodes: Any = OmegaConf.to_container(given, resolve=True) if isinstance(given, ListConfig) else []
    return nodes, ""


def _of_size(cfg: DictConfig, cohort: Cohort) -> Iterator[Choice]:
    """What the size of the training samples decides."""
    if not (keys := [key for key in MAGNIFIES if OmegaConf.select(cfg, key) == "auto"]):
        return
    side = median(max(cohort.shape(info.name)[:2]) for info in cohort.split("train"))
    why = f"training samples are {side:.0f} pixels a side; the encoder has learned from {SIDE_OF_PHOTOGRAPHS}"
    # A number of few digits, as it is to be given by hand; beyond these limits an image costs much or shows little.
    factor = min(max(round(SIDE_OF_PHOTOGRAPHS / side, 2), 0.25), 8.0)
    # The reason once, for it is the same for all.
    yield from (Choice(key, factor, "" if number else why) for number, key in enumerate(keys))


def _of_orientation(cfg: DictConfig, cohort: Cohort) -> Iterator[Choice]:
    """Which flips and rotations the training samples bear."""
    keys = [f"augmentation.{name}.ways" for name in cfg.augmentation or ()]
    keys = [key for key in keys if OmegaConf.select(cfg, key) == "auto"]
    if keys and cohort.channels.spectral:
        # A piece of tissue has no top, and how one came to lie on a slide is chance.
        yield from (Choice(key, "all", "") for key in keys)
    elif keys:
        seen = Orientation.of(cohort)
        yield from (Choice(key, seen.ways, seen.why) for key in keys)


def corrections_for(channels: Channels) -> tuple[list[dict[str, Any]], str]:
    """The corrections that channels call for, as configuration, and the reason in words."""
    snv = {"_target_": "compseg.preprocessing.StandardNormalVariate"}
    if not channels.spectral:
        return [], "channels without a spectral axis"
    if channels.count < LONG_SPECTRUM:
        return [snv], "a short spectral axis"
    # The polynomial, of degree 4, adds .08 of pixel AP and .13 of Dice on an unseen array (docs/research/lab-log.md).
    return [{"_target_": "compseg.preprocessing.Detrend", "channels": channels.count}, snv], "a spectral axis"


def _of_the_step(cfg: DictConfig, cohort: Cohort) -> Iterator[Choice]:
    """How a step is computed: precision, compilation, memory format, a fused optimizer."""
    gpu = trains_on_cuda(str(cfg.trainer.accelerator))
    rules = {
        "precision": _precision(gpu),
        "compile": _compile(gpu, _of_one_size(cfg, cohort), _steps(cfg, cohort)),
        # .164 s forward and backward of 7 x 64 x 64 x 450, against .281 s contiguous (docs/research/performance.md).
        "memory_format": ("channels_last", "as samples are stored"),
    }
    for key, (value, why) in rules.items():
        if cfg.trainer[key] == "auto":
            yield Choice(f"trainer.{key}", value, why)
    if gpu and _takes_fused(cfg.optimizer):
        yield Choice("optimizer.fused", True, "one kernel for all weights")


def trains_on_cuda(accelerator: str) -> bool:
    """Whether Lightning would take a CUDA device for this setting of `trainer.accelerator`."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _precision(gpu: bool) -> tuple[str, str]:
    # Older GPUs emulate bf16, which torch counts as support; they have no fast units for it.
    if gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", "this GPU multiplies bf16 many times faster; head and objective stay in float32"
    return "32-true", "a GPU without bf16" if gpu else "no GPU"


def _compile(gpu: bool, of_one_size: bool, steps: float) -> tuple[str | None, str]:
    if not gpu:
        return None, "it pays on a GPU"
    # Each size would be compiled for by itself.
    if not of_one_size:
        return None, "images of several sizes"
    if steps < WORTH_COMPILING:
        return None, f"{steps:.0f} steps, and it takes about as long as {WORTH_COMPILING} save"
    # Not reduce-overhead, though its epochs are shorter (.155 s, not .188 s, on an H200): it hands out maps that the
    # next pass overwrites, and callbacks keep maps (docs/research/lab-log.md).
    return "default", f"{steps:.0f} steps, all images of one size"


def _steps(cfg: DictConfig, cohort: Cohort) -> float:
    """About how many steps of training each device takes."""
    epochs, labels = cfg.trainer.max_epochs, [info.label for info in cohort.split("train")]
    if epochs is None or epochs < 0:
        return math.inf
    devices = number_of_devices(cfg.trainer.devices, cfg.trainer.num_nodes)
    # An epoch ends when the smaller class is used up (`BalancedBatches`).
    return float(epochs * 2 * min(labels.count(0), labels.count(1)) // (cfg.data.batch_size * devices))


def _of_one_size(cfg: DictConfig, cohort: Cohort) -> bool:
    shapes = {cohort.shape(info.name)[:2] for info in cohort.split("train")}
    crop = cfg.data.crop
    return len(shapes) == 1 or (crop is not None and all(min(shape) >= crop for shape in shapes))


def _takes_fused(optimizer: DictConfig) -> bool:
    # Not every optimizer has such a kernel: RMSprop refuses the argument.
    return "fused" not in optimizer and "fused" in inspect.signature(get_object(optimizer["_target_"])).parameters


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(node["_target_"].rpartition(".")[2] for node in value) + "]"
    return "null" if value is None else str(value)


def _require(key: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        names = ", ".join(_shown(name) for name in known)
        raise CompsegError(f"trainer.{key}={value}: expected auto, {names}; choose one of these")
