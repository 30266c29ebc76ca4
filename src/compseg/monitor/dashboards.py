"""Dashboards: the same on W&B and on TensorBoard, and none that prevents a run."""

from __future__ import annotations

import inspect
import json
import netrc
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image as Pillow
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from compseg.files import atomic_text
from compseg.inference.folder import DESCRIPTION
from compseg.log import log, rank

# The part of a name before the slash is a section of W&B's workspace and a group of TensorBoard's; all are by epoch.
SECTIONS = ("train", "val", "collapse", "figures", "activation")

JOB = "job.json"  # what a sweep leaves in the run folder of each of its jobs

RGB = NDArray[np.uint8]
Counts = tuple[NDArray[np.float64], NDArray[np.float64]]


def wandb_logger(
    save_dir: str, name: str | None = None, group: str | None = None, init: int | None = None, **options: Any
) -> WandbLogger:
    """A W&B logger; offline where there is no key, to be sent later with `wandb sync`.

    The mode is chosen before W&B starts: falling back after a failed log-in leaves its library in a bad state. A run
    that is resumed in its folder continues as the same run of W&B.

    Args:
        save_dir: The run folder; W&B's files go to `wandb` in it.
        name: Of the run; None: that of the run folder, after the group's if there is one.
        group: Runs that belong together; None: `WANDB_RUN_GROUP` if that is set; for a job of a sweep the name of the
            sweep's folder.
        init: Number of one of several inits, each a run of W&B: all in a group with the name of the whole run.
        **options: Further ones of `pytorch_lightning.loggers.WandbLogger`: project, tags, notes, entity.
    """
    # Lightning replaces offline by dryrun, its older name, when the first logger starts.
    offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not has_key()
    if offline and init is None:
        log(
            f"logger=wandb: offline, for there is no key; send it later with: wandb sync {save_dir}/wandb/offline-run-*"
        )
    run = Path(save_dir)
    # Its lines would come after those of the run, and one says where to look (`Dashboards.describe`).
    os.environ.setdefault("WANDB_SILENT", "true")
    # An artifact is copied aside before it is sent: into the run's folder, so that it stays with an offline run.
    os.environ.setdefault("WANDB_DATA_DIR", str(run / "wandb"))
    group = group or os.environ.get("WANDB_RUN_GROUP") or (run.parent.name if (run / JOB).is_file() else None)
    name = name or (f"{group}/{run.name}" if group else run.name)
    agents = os.environ.get("WANDB_RUN_ID")  # an agent of W&B's names its runs, and W&B takes that name by itself
    wandb_id = None if agents else _run_id(run)
    if init is not None:
        wandb_id = f"{agents or wandb_id}-init{init}"
        group, name = name, f"{name}/init{init}"
        if "WANDB_SWEEP_ID" in os.environ:
            options["mode"] = "disabled"  # a run that the agent has not asked for would count as one of its sweep
    return WandbLogger(
        offline=offline, log_model=False, save_dir=save_dir, name=name, group=group, id=wandb_id, **options
    )


def _run_id(run: Path) -> str | None:
    """The folder's name for its run of W&B, made up on first use."""
    if rank():
        return None
    file = run / "wandb" / "run_id"
    if not file.is_file():
        atomic_text(file, uuid.uuid4().hex[:8])
    return file.read_text(encoding="utf-8")


def has_key() -> bool:
    """Whether W&B has a key; nothing is sent."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    # `wandb login` leaves the key in netrc; asking W&B itself would import it.
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Dashboards:
    """The dashboards of a run, if any; a context that closes them: what fails inside is a crashed run there too.

    Ranks other than 0 send nothing. W&B has one open run per process, which starts with the first thing that is sent:
    send something to another `Dashboards` only when those before are closed.

    Args:
        loggers: Of Lightning.
    """

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self.loggers = list(loggers)
        self.told = ""  # where W&B shows the run

    @classmethod
    def of(cls, nodes: DictConfig | None, init: int | None = None) -> Dashboards:
        """Those of a configuration, by name.

        Args:
            nodes: A node for each logger.
            init: Number of one of several inits, which are shown side by side and not in one curve: a logger whose
                constructor takes `init` gets it (W&B: a run of its own, grouped), one that takes `sub_dir` writes to
                the folder `init2` in its own (TensorBoard). None: the run as a whole.
        """
        return cls([_logger(node, init) for node in nodes.values()] if nodes else [])

    def __enter__(self) -> Dashboards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = 0 if error is None else getattr(error, "exit_code", 1)  # the end by a signal has its own code
        for logger in self.loggers:
            logger.finalize("failed" if code else "success")
        # W&B is not imported for this: without it there is nothing to close.
        if (wandb := sys.modules.get("wandb")) and wandb.run is not None:
            wandb.finish(exit_code=code)

    @rank_zero_only
    def describe(self, config: Mapping[str, Any]) -> None:
        """Send the resolved configuration, and to W&B that epochs are what it plots against."""
        for logger in self.loggers:
            logger.log_hyperparams(dict(config))
            if isinstance(logger, WandbLogger):
                if (url := logger.experiment.url) and url != self.told:
                    log(f"W&B: {url}")
                    self.told = url
                logger.experiment.define_metric("epoch", hidden=True)
                for section in SECTIONS:
                    logger.experiment.define_metric(f"{section}/*", step_metric="epoch")

    @rank_zero_only
    def pictures(self, pictures: Mapping[str, RGB], step: int | None = None, epoch: int | None = None) -> None:
        """Send pictures `(h, w, 3)` by name; step and epoch of training where they belong to one."""
        for logger in self.loggers:
            if isinstance(logger, WandbLogger):
                _to_wandb(logger, {name: _wandb().Image(picture) for name, picture in pictures.items()}, step, epoch)
            if isinstance(logger, TensorBoardLogger):
                for name, picture in pictures.items():
                    logger.experiment.add_image(name, picture, step, dataformats="HWC")

    @rank_zero_only
    def histograms(self, histograms: Mapping[str, Counts], step: int, epoch: int) -> None:
        """Send histograms by name: counts `(K,)` and edges `(K + 1,)`."""
        for logger in self.loggers:
            if isinstance(logger, WandbLogger):
                made = {name: _wandb().Histogram(np_histogram=counts) for name, counts in histograms.items()}
                _to_wandb(logger, made, step, epoch)
            if isinstance(logger, TensorBoardLogger):
                for name, counts in histograms.items():
                    _to_tensorboard(logger, name, counts, step)

    @rank_zero_only
    def segmenter(self, folder: Path) -> None:
        """Send the extracted segmenter to W&B as an artifact of type `model`; its description becomes the metadata."""
        for logger in self.loggers:
            if isinstance(logger, WandbLogger):
                metadata = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
                artifact = _wandb().Artifact("segmenter", type="model", metadata=metadata)
                artifact.add_dir(str(folder))
                logger.experiment.log_artifact(artifact)

    @rank_zero_only
    def results(self, metrics: Mapping[str, float], figures: Path | None = None) -> None:
        """Send the final metrics, which are W&B's summary of the run, and the report's pictures from their folder."""
        for logger in self.loggers:
            logger.log_metrics(dict(metrics))
        files = sorted(figures.glob("*.png")) if figures else []
        self.pictures({f"test/{file.stem}": _pixels(file) for file in files})


def _logger(node: DictConfig, init: int | None) -> Logger:
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    own: dict[str, Any] = {}
    if init is not None:
        own = {"init": init} if "init" in parameters else {"sub_dir": f"init{init}"} if "sub_dir" in parameters else {}
    # W&B takes lists and dicts, and no OmegaConf containers.
    logger: Logger = instantiate(node, **own, _convert_="all")
    return logger


def _to_wandb(logger: WandbLogger, things: dict[str, Any], step: int | None, epoch: int | None) -> None:
    # Lightning sends an epoch's scalars with these two; what is to be shown beside them needs them too.
    place = {} if step is None else {"trainer/global_step": step, "epoch": epoch}
    logger.experiment.log({**things, **place})


def _to_tensorboard(logger: TensorBoardLogger, name: str, counts: Counts, step: int) -> None:
    heights, edges = counts
    middles = (edges[:-1] + edges[1:]) / 2
    # `add_histogram` would want the value of every pixel, of which counts alone are kept.
    logger.experiment.add_histogram_raw(
        name,
        min=float(edges[0]),
        max=float(edges[-1]),
        num=float(heights.sum()),
        sum=float(heights @ middles),
        sum_squares=float(heights @ middles**2),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=heights.tolist(),
        global_step=step,
    )


def _pixels(file: Path) -> RGB:
    with Pillow.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _wandb() -> Any:
    import wandb  # half a second, for those who log there

    return wandb
