"""A segmenter as one graph, from raw cubes to maps, for ONNX Runtime or for torch without compseg."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from compseg.errors import CompsegError, cause, require
from compseg.files import atomic_bytes, atomic_json
from compseg.inference import Segmenter, load_segmenter
from compseg.inference.cam import GradCAM
from compseg.run_folder import version_of

LOG = logging.getLogger("compseg")
OPSET = 20  # of ONNX
INPUTS, OUTPUT = ("image", "tissue"), "activation"
EXAMPLE = (2, 50, 67)  # B, H, W that the network is traced with; no sides that networks divide evenly
CHECKED = ((3, 33, 129), (3, 64, 40))  # and that the graph is compared at
# A graph rounds in another order. SegNet puts maxima back where they were found: where two are equal but for rounding,
# the map of a sample changes by .01, as it does in torch between memory formats. A wrong graph differs in all samples.
TOLERANCE = 1e-4
# Networks whose layout depends on the size of the image: torch traced SwinUNETR's windows for minutes without an end.
SIZED = ("SwinUNETR",)
Run = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]


class MapOfCubes(nn.Module):
    """All that a segmenter does to samples of one size: rounding, preprocessing, contrast, network, sigmoid."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.model, self.preprocess = segmenter.model, segmenter.preprocess
        self.pseudo_labels = segmenter.pseudo_labels
        self.dtype = getattr(torch, segmenter.dtype)

    def forward(self, image: Tensor, tissue: Tensor) -> Tensor:
        """Raw values `(B, C, H, W)` float32 and tissue `(B, 1, H, W)` bool to the activation `(B, 1, H, W)`."""
        given = self.preprocess(image.to(self.dtype), tissue)
        if self.pseudo_labels is not None:
            given = self.pseudo_labels.contrast(given, tissue)
        logits = self.model(given)[:, :1].float()
        return torch.where(tissue, torch.sigmoid(logits), 0.0)


def export_model(run: Path, out: Path, *, onnx: bool, trust: tuple[str, ...] = ()) -> list[Path]:
    """Write a run's segmenter as `model.onnx` or, by `torch.export`, `model.pt2`; beside it `model.json` describes it.

    Batch and size are free. Before it is written the graph is compared with the segmenter; one for ONNX only where ONNX
    Runtime is installed.

    Args:
        run: A run folder, or that of a segmenter.
        out: Folder, made if absent.
        onnx: Whether to write ONNX.
        trust: What the segmenter may be built from beyond the known packages.

    Returns:
        The paths written.

    Raises:
        CompsegError: The segmenter cannot be a graph, its graph differs from it, or a package is missing.
    """
    segmenter = load_segmenter(run, trust=trust)
    require(len(segmenter.parts()) == 1, f"{run}: is an ensemble; export its members, {run}/members/1 and so on")
    require(
        not isinstance(segmenter.model, GradCAM),
        f"{run}: its maps are made of gradients, which no graph has; use compseg.predict",
    )
    sized = next((type(part).__name__ for part in segmenter.model.modules() if type(part).__name__ in SIZED), None)
    require(sized is None, f"{run}: the layers of {sized} depend on the size of an image; use compseg.predict")
    for package in ("onnx", "onnxscript") if onnx else ():
        require(find_spec(package) is not None, f"format=onnx: {package} is missing; pip install 'compseg[export]'")
    described = description(segmenter, onnx)
    with _exporting(segmenter, run):
        program = traced(segmenter)
        content = to_onnx(program, described) if onnx else to_torch(program)
    if (runs := _onnx_runs(content) if onnx else _torch_runs(content)) is None:
        LOG.warning("onnxruntime is not installed: the graph was not compared with the segmenter")
    else:
        _compare(segmenter, runs, run)
    path = out / ("model.onnx" if onnx else "model.pt2")
    atomic_bytes(path, content)
    atomic_json(path.with_suffix(".json"), described)
    return [path, path.with_suffix(".json")]


def traced(segmenter: Segmenter) -> ExportedProgram:
    """The graph of a segmenter, with free batch, height and width."""
    batch, height, width = EXAMPLE
    image = torch.rand(batch, segmenter.channels.count, height, width)
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    example = (image, torch.ones(batch, 1, height, width, dtype=torch.bool))
    with torch.no_grad():
        return torch.export.export(MapOfCubes(segmenter).eval(), example, dynamic_shapes=(free, free))


def to_onnx(program: ExportedProgram, described: dict[str, Any]) -> bytes:
    """The bytes of an ONNX file that holds a graph and what describes it."""
    made = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=INPUTS, output_names=[OUTPUT], verbose=False
    )
    assert made is not None
    made.model.metadata_props["compseg"] = json.dumps(described)
    content: bytes = made.model_proto.SerializeToString()
    return content


def to_torch(program: ExportedProgram) -> bytes:
    """The bytes of a file that `torch.export.load` reads."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def description(segmenter: Segmenter, onnx: bool) -> dict[str, Any]:
    """What somebody who has the graph alone has to know, plain values."""
    threshold = segmenter.threshold
    return {
        "format": f"ONNX, opset {OPSET}" if onnx else "torch.export",
        "inputs": {
            "image": "(B, C, H, W) float32: raw values, as the instrument gave them",
            "tissue": "(B, 1, H, W) bool: the pixels that count",
        },
        "outputs": {OUTPUT: "(B, 1, H, W) float32 in [0, 1], 0 off tissue; above the threshold is disease"},
        # All samples of a batch are of one size, and none is a part: the contrast is with all of a sample.
        "whole_samples": segmenter.pseudo_labels is not None,
        "tissue_rule": segmenter.tissue_rule,
        "channels": segmenter.channels.to_dict(),
        "threshold": threshold.to_dict() if threshold else None,
        "provenance": segmenter.provenance,
        "torch": version_of("torch"),
    }


@contextmanager
def _exporting(segmenter: Segmenter, run: Path) -> Iterator[None]:
    """Errors in one line, and no lines about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # of which kinds, torch does not promise
        kind = type(segmenter.model).__name__
        raise CompsegError(f"{run}: {kind} cannot be a graph ({cause(error)}); use compseg.predict") from error
    finally:
        logger.setLevel(level)


def _torch_runs(content: bytes) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()

    def run(image: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
        with torch.no_grad():
            activation: NDArray[np.float32] = module(torch.from_numpy(image), torch.from_numpy(tissue)).numpy()
        return activation

    return run


def _onnx_runs(content: bytes) -> Run | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda image, tissue: session.run(None, {"image": image, "tissue": tissue})[0]


def _compare(segmenter: Segmenter, run: Run, name: Path) -> None:
    generator = np.random.default_rng(0)
    for batch, height, width in CHECKED:
        cubes = generator.random((batch, height, width, segmenter.channels.count), np.float32)
        tissue = generator.random((batch, height, width)) > 0.2
        maps = np.stack([segmenter(cube, mask) for cube, mask in zip(cubes, tissue, strict=True)])
        given = np.ascontiguousarray(np.moveaxis(cubes, 3, 1))
        differences = np.abs(run(given, tissue[:, None])[:, 0] - maps).max((1, 2))
        require(
            float(np.median(differences)) <= TOLERANCE,
            f"{name}: the graph differs from the segmenter by {np.median(differences):.2g} at {height} x {width} "
            "pixels, and is not written; use compseg.predict",
        )
