"""What is in a run folder, for all rooms that read one: names of its files, its configuration, its checkpoints.

Rooms ask the configuration through the functions below, which know where earlier versions kept a value: runs stay
readable.
"""

from __future__ import annotations

import csv
import io
import platform
import shutil
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.errors import CompsegError, reading, require
from compseg.files import checked_json, read_checked, write_checked

CHECKPOINTS, BEST, LAST = "checkpoints", "best.ckpt", "last.ckpt"
HISTORY = "history.csv"
RUN_FILES = ("config.yaml", CHECKPOINTS, "segmenter", "inits")
RESULTS = ("metrics.json", "samples.csv", "bootstrap.npz", "report.html", "maps", "figures")
LEFT_BY_RUN = (*RESULTS, "history*.csv", "collapse.json", "environment.json", ".checksums")
# What tells that a folder is something's own.
KINDS = {
    "a run": RUN_FILES,
    "a prediction": ("prediction.json",),
    "an evaluation": ("evaluation.json",),
    "a comparison": ("comparison.csv",),
    "a sweep": ("multirun.yaml",),
    "a cohort": ("zarr.json",),
    "an export": ("export.json",),
}
FINGERPRINT = "cohort_fingerprint"  # in config.yaml and in checkpoints


def load_config(run: Path) -> DictConfig:
    """The resolved configuration of a run.

    Raises:
        CompsegError: If the folder is no run.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise CompsegError(f"{run}: not a run folder (config.yaml is missing); give a folder that compseg.train wrote")
    with reading(path, fix := "restore it, or train again"):
        config = OmegaConf.create(read_checked(path, fix).decode())
        if not isinstance(config, DictConfig) or not {"data", "head"} <= set(config):
            raise TypeError("expected the configuration of a training run, with data and head")
        OmegaConf.resolve(config)
        return config


def threshold_of(config: DictConfig) -> str | float:
    """How the threshold is fitted, or its value; top-level `threshold` before there was `evaluation`."""
    how: str | float | None = OmegaConf.select(config, "evaluation.threshold")
    return config.get("threshold", "auto") if how is None else how


def trains_on_pseudo_labels(config: DictConfig) -> bool:
    """Whether the segmenter learned what a pseudo-labeller marks; `teacher.teaches` in earlier runs."""
    node = config.get("pseudo_labels", config.get("teacher"))
    return bool(node and node.get("supervises", node.get("teaches", True)))


def read_history(run: Path) -> list[dict[str, str]]:
    """The rows of a run's `history.csv`, one an epoch, by column; empty while there is none.

    Raises:
        CompsegError: It is damaged.
    """
    path = run / HISTORY
    if not path.is_file():
        return []
    with reading(path, fix := "delete it; the curves of its epochs are lost, and nothing else"):
        rows = list(csv.DictReader(io.StringIO(read_checked(path, fix).decode(), newline=""), strict=True))
        for row in rows:
            float(row["epoch"])
            _ = [float(cell or "nan") for cell in row.values()]
        return rows


def fingerprint_of(config: DictConfig) -> str | None:
    """Of the cohort that a run was trained on; None in earlier versions."""
    fingerprint: str | None = config.get(FINGERPRINT)
    return fingerprint


def holds_run(run: Path) -> bool:
    """Whether a run was trained in a folder, however far."""
    return any((run / name).exists() for name in RUN_FILES)


def refuse_other_kind(folder: Path, kind: str, key: str) -> None:
    """Refuse to write into a folder that is something else's: each result has a folder of its own.

    Args:
        folder: Where to write.
        kind: Of `KINDS`, what is written.
        key: What the user may set to write elsewhere.

    Raises:
        CompsegError: It holds another kind.
    """
    held = (name for name, files in KINDS.items() if any((folder / file).exists() for file in files))
    other = next((name for name in held if name != kind), None)
    require(
        other is None, f"{folder}: holds {other}, beside which {kind} would be mistaken for its own; give {key}=NEW"
    )


def refuse_another_run(run: Path, resume: str | None, *, overwrite: bool) -> None:
    """Refuse to train where another run is, beside whose report a new segmenter would stand.

    Args:
        run: The folder.
        resume: What the new run continues from: `auto`, a run or a checkpoint; None: nothing.
        overwrite: Whether the other run may go.

    Raises:
        CompsegError: It holds another.
    """
    refuse_other_kind(run, "a run", "hydra.run.dir")
    if overwrite or resume == "auto" or not holds_run(run):
        return
    from_here = resume is not None and run.resolve() in (Path(resume).resolve(), *Path(resume).resolve().parents)
    require(
        from_here,
        f"{run}: holds another run; give another hydra.run.dir, trainer.resume=auto to continue it, or overwrite=true "
        "to replace it",
    )


def remove_run(run: Path) -> None:
    """Remove what a run has left in its folder; what is not of a run stays."""
    for name in (*RUN_FILES, *LEFT_BY_RUN):
        for path in run.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_results(run: Path) -> None:
    """Remove what an evaluation has left in a run's folder, for a segmenter that is no longer there."""
    # Of pictures the files alone: `figures/epochs` is of training.
    for path in [*(run / name for name in RESULTS if name != "figures"), *run.glob("figures/*.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of plain values and tensors.

    Raises:
        CompsegError: If it is missing or damaged.
    """
    import torch  # a leaf should not cost those torch who ask for a name alone

    if not path.is_file():
        raise CompsegError(f"{path}: no such checkpoint; train at least one epoch, or give another run")
    with reading(path, "use another checkpoint, or train again"):
        # torch writes a checksum of each tensor, and reads without a look at it.
        with zipfile.ZipFile(path) as archive:
            require(archive.testzip() is None, f"{path}: damaged (checksum); use another checkpoint, or train again")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise TypeError("no checkpoint of a training run")
        return checkpoint


def best_metric(checkpoint: dict[str, Any]) -> float:
    """The best value of the metric that best epochs are chosen by, `val/loss` unless another was chosen."""
    states = checkpoint["callbacks"].items()
    # Lightning's name of a callback's state continues with its settings.
    return next(float(state["best_model_score"]) for name, state in states if name.startswith("BestAndLast"))


def record(run: Path, config: Mapping[str, Any], asked: Mapping[str, Any], fingerprint: str) -> None:
    """Write `config.yaml` and `environment.json` before anything can go wrong.

    Args:
        run: The run folder.
        config: The resolved configuration, plain values.
        asked: What was asked for by the dotted keys that were resolved; written under `asked`.
        fingerprint: Of the cohort.
    """
    written = {**config, "asked": dict(asked), FINGERPRINT: fingerprint}
    write_checked(run / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(written)))
    checked_json(run / "environment.json", environment())


def environment() -> dict[str, Any]:
    """Versions and hardware, plain values; no names of people or machines."""
    import torch

    packages = ("compseg", "torch", "pytorch-lightning", "hydra-core", "torchmetrics", "zarr", "numpy")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **{package: version_of(package) for package in packages},
    }


def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
