"""Takes the segmenter out of the CompSegNet: all that is kept of it (paper, section 3.2)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from compseg.cohort import Cohort
from compseg.inference import Segmenter
from compseg.preprocessing import resolve_rule
from compseg.run_folder import BEST, CHECKPOINTS, best_metric, load_checkpoint, remove_results, version_of
from compseg.training.build import plain
from compseg.training.module import CompSegNet


def extract(module: CompSegNet, cfg: DictConfig, cohort: Cohort, run: Path) -> Segmenter:
    """Save the segmenter of the best epoch, with all that prediction needs, to `run/segmenter`.

    Where another segmenter was there, what was found with it goes.

    Args:
        module: Of the run's configuration; it is given the best epoch's weights.
        cfg: The run's configuration, resolved.
        cohort: That it was trained on.
        run: The run folder.
    """
    best = load_checkpoint(run / CHECKPOINTS / BEST)
    module.load_state_dict(best["state_dict"])
    config = plain(cfg)
    model, model_node = map_maker(module.segmenter, config)
    segmenter = Segmenter(
        model=model,
        preprocess=module.preprocess,
        model_node=model_node,
        preprocess_node=config["preprocess"],
        channels=cohort.channels,
        tissue_rule=resolve_rule(cohort.tissue_rule, cohort.channels),
        dtype=cohort.dtype,
        input=cohort.input,
        pseudo_labels=module.contrasts,
        pseudo_labels_node=config["pseudo_labels"] if module.contrasts is not None else None,
        provenance={
            "run": run.name,
            "epoch": int(best["epoch"]),
            "val_loss": best_metric(best),
            "seed": cfg.seed,
            "compseg": version_of("compseg"),
        },
    )
    if _holds_another(run / "segmenter", segmenter.provenance):
        remove_results(run)
    segmenter.save(run / "segmenter")
    return segmenter


def _holds_another(folder: Path, provenance: dict[str, Any]) -> bool:
    """Whether the segmenter in a folder is of another epoch, or of another run."""
    description = folder / "segmenter.json"
    with suppress(OSError, ValueError, LookupError, TypeError):  # damaged
        return bool(json.loads(description.read_text("utf-8"))["provenance"] != provenance)
    return description.exists()


def map_maker(segmenter: nn.Module, config: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """What makes the map, and how to build it: the segmenter, or the CAM that the method reads off it.

    Raises:
        CompsegError: The CAM needs a layer that the segmenter does not have.
    """
    cam = config["method"]["cam"]
    if cam is None:
        return segmenter, config["model"]
    # `_partial_` is for a CAM around a network that exists; prediction builds both, from one node.
    node = {key: value for key, value in cam.items() if key != "_partial_"}
    return instantiate(cam)(segmenter), {**node, "net": config["model"]}
