"""The extracted segmenter: what is left of a CompSegNet after training, and all that prediction needs.

"After convergence of the CompSegNet training [...] only the underlying U-Net is extracted" (paper, 3.2). Needs torch,
numpy and safetensors alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compseg.axes import align, channels_of
from compseg.comparative import FisherPseudoLabels
from compseg.errors import CompsegError, require
from compseg.files import atomic_json
from compseg.inference.building import build_safe, without_fetching
from compseg.inference.folder import (
    DESCRIPTION,
    ENSEMBLE,
    FORMAT,
    OLD_WEIGHTS,
    checksum_of,
    find_folder,
    open_weights,
    read_description,
    write_weights,
)
from compseg.inference.network_input import SumsByScore, network_input, score_tile
from compseg.inference.threshold import Threshold
from compseg.inference.tiling import MapsWindows, Tile, cut, cut_blocks, largest_side, receptive_field_of
from compseg.inputs import InputSpec, rescaling, seen_values, without_mask
from compseg.preprocessing import Preprocess, tissue_mask
from compseg.preprocessing.pipeline import correct_tissue, count_after, short_name
from compseg.samples import Channels, Image, Mask, Window

LOG = logging.getLogger("compseg")
# All of prediction may take 2 GB above the model, and takes 1.6 to 1.9 so (docs/research/performance.md).
TILE_MEMORY = 1.6e9  # bytes that a tile may take; what reads it and writes its map takes some more
CORRECTIONS_MEMORY = 10**7  # bytes, of what a description's corrections may hold
PARTS = {"model": nn.Module, "preprocess": Preprocess, "pseudo_labels": FisherPseudoLabels}  # of a description
FASTEST_SIDE = 512  # pixels, beside the margins: more than that only leaves the processor's cache
Axis = Channels | Sequence[float] | Sequence[str]
Pieces = Callable[[Sequence[Tile]], Iterable[tuple[Tile, Image, Mask]]]


@dataclass(repr=False)
class Segmenter:
    """A callable from raw cubes to activation maps.

    Attributes:
        model: From `(B, C, H, W)` to logits `(B, M, H, W)`; map 0 is the disease map.
        preprocess: From raw values to standardised spectra.
        model_node: How to build `model`: `_target_` and plain arguments.
        preprocess_node: How to build `preprocess`.
        channels: The channel axis that the model was trained on.
        tissue_rule: Which pixels count where no mask is given: `all`, `nonzero` or `otsu`.
        dtype: Type that raw values are rounded to first, as the training cohort stored them, so that a map does not
            depend on whether a sample came from a cohort or from a file.
        threshold: The activation above which a pixel counts as disease, once fitted.
        provenance: Where it came from: run, epoch, validation loss, versions. Plain values.
        pseudo_labels: Where the network reads contrasts, what computes them; None: it reads the preprocessed samples.
        pseudo_labels_node: How to build `pseudo_labels`.
        input: How the training files were read, and the scale of their values.
    """

    model: nn.Module
    preprocess: Preprocess
    model_node: dict[str, Any]
    preprocess_node: dict[str, Any]
    channels: Channels
    tissue_rule: str = "all"
    dtype: str = "float16"
    threshold: Threshold | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    pseudo_labels: FisherPseudoLabels | None = None
    pseudo_labels_node: dict[str, Any] | None = None
    input: InputSpec = field(default_factory=InputSpec)

    def __post_init__(self) -> None:
        # With dropout, or norms by the batch's statistics, a map would depend on chance and on its neighbours.
        self.model.eval()
        self.preprocess.eval()
        self._corrections: nn.Sequential | None = None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.preprocess.mean.device

    def parts(self) -> list[Segmenter]:
        """The segmenters whose mean it is: itself, unless it is an ensemble."""
        return [self]

    def to(self, device: str | torch.device) -> Segmenter:
        """Move model and preprocessing, in place."""
        self.model.to(device)
        self.preprocess.to(device)
        if self.pseudo_labels is not None:
            self.pseudo_labels.to(device)
        return self

    def tissue(self, image: Image) -> Mask:
        """The `(H, W)` tissue mask of an image without one, by the training cohort's rule."""
        if told := without_mask(self.input, self.tissue_rule):
            LOG.warning(f"image: {told}")
        return tissue_mask(image, self.tissue_rule, self.input.channels or self.channels)

    def __call__(
        self, image: Image, tissue: Mask | None = None, axis: Axis | None = None, unit: str = ""
    ) -> NDArray[np.float32]:
        """The activation map of one image.

        Args:
            image: `(H, W, C)` raw values, or `(H, W)` where the model takes one channel.
            tissue: `(H, W)` bool; the tissue rule decides where it is None.
            axis: Positions or names of the image's channels, which are then put in order or resampled linearly to those
                of the model; None: they are the model's.
            unit: Unit of positions: `cm-1`, `nm`, `um` or `eV`; empty: that of the model.

        Returns:
            `(H, W)` float32 in [0, 1], zero outside the tissue.

        Raises:
            CompsegError: If the channels are not the model's, or cannot be made so; or the values are of another type
                and scale than those of training.
        """
        image = self._scaled(self._checked(image, axis, unit), tissue)
        mask = self.tissue(image) if tissue is None else tissue
        activation, tiles = np.zeros(mask.shape, np.float32), self.tiles(mask.shape)
        background = self.background(tiles, lambda some: ((tile, image[tile.seen], mask[tile.seen]) for tile in some))
        for tile in tiles:
            activation[tile.core] = self.activation(image[tile.seen], mask[tile.seen], background, tile.inner)
        return activation

    def _scaled(self, image: Image, tissue: Mask | None) -> Image:
        """An image on the scale of the training images; corrected spectra are of a scale of their own."""
        if self.input.corrections:
            return image
        factor, told = rescaling(seen_values(image, tissue), self.input, "image")
        if told:
            LOG.warning(f"image: {told}")
        return image if factor == 1 else np.multiply(image, np.float32(factor), dtype=np.float32)

    def mask(self, image: Image, tissue: Mask | None = None, axis: Axis | None = None, unit: str = "") -> Mask:
        """The `(H, W)` bool mask of an image: tissue whose activation exceeds the threshold. As the map, else.

        Raises:
            CompsegError: If no threshold was fitted yet.
        """
        if self.threshold is None:
            raise CompsegError(
                "segmenter: has no threshold yet; run compseg.evaluate on its run, or use with_threshold"
            )
        activation = self(image, tissue, axis, unit)
        return self.threshold.apply(activation, np.ones(activation.shape, bool) if tissue is None else tissue)

    def correct(self, image: Image, tissue: Mask) -> Image:
        """A raw image `(H, W, C)` as the training cohort holds its own: what was done to that when it was prepared.

        Raises:
            CompsegError: A correction is not of this package.
        """
        if self._corrections is None:
            where = f"{DESCRIPTION}: input.corrections"
            steps = (
                build_safe(node, nn.Module, where, file_size=CORRECTIONS_MEMORY) for node in self.input.corrections
            )
            self._corrections = nn.Sequential(*steps)
        return correct_tissue(self._corrections, image, tissue)[0]

    def describe(self) -> str:
        """Network, channels, what it reads, threshold and its limits, a line each."""
        origin, axis = self.provenance, self.channels
        names = f" from {axis.values[0]:g} to {axis.values[-1]:g} {axis.unit}" if axis.spectral else ""
        weights = sum(weight.numel() for weight in self.model.parameters())
        threshold = self.threshold
        cut = "none yet; compseg.evaluate fits one" if threshold is None else f"{threshold.value:.3f} ({threshold.how})"
        spread = "" if threshold is None else f", 95 % interval {threshold.low:.3f} to {threshold.high:.3f}"
        corrections = ", ".join(type(each).__name__ for each in self.preprocess.corrections) or "none"
        before = ", ".join(map(short_name, self.input.corrections))
        raw = f"raw, then {before} (`correct`)" if before else "raw"
        contrast = "contrasts with each sample's own background" if self.pseudo_labels else "standardised values"
        return "\n".join(
            (
                f"Segmenter of {origin.get('run', 'no run')}, epoch {origin.get('epoch', '-')}",
                f"  network      {type(self.model).__name__}, {weights:,} weights, on {self.device}",
                f"  channels     {axis.count}{names}, last in an image (H, W, C)",
                f"  values       {raw}, rounded to {self.dtype}; corrections: {corrections}",
                f"  reads        {contrast}",
                f"  tissue       where no mask is given: {self.tissue_rule}",
                f"  threshold    {cut}{spread}",
                "  limits       learned from sample labels; images of another instrument, preparation or disease need",
                "               a test of their own (compseg.evaluate run=RUN cohort=OTHER)",
            )
        )

    def __repr__(self) -> str:
        return self.describe()

    @torch.inference_mode()
    def background(self, tiles: Sequence[Tile], pieces: Pieces) -> Tensor | None:
        """The background spectrum of an image that is read in tiles, as if it were read in one piece.

        Args:
            tiles: Of the image.
            pieces: Gives some tiles, each with the image `(h, w, C)` and the tissue `(h, w)` that it sees.

        Returns:
            `(1, C)`; None where none is needed, or a single tile has its own.

        Raises:
            CompsegError: If tissue pixels are not finite.
        """
        if (pseudo_labels := self.pseudo_labels) is None or len(tiles) == 1 or not pseudo_labels.own:
            return None
        height, width = (part.stop for part in tiles[-1].core)
        score, tissue = (
            torch.zeros(1, 1, height, width, dtype=dtype, device=self.device) for dtype in (torch.float32, torch.bool)
        )
        sums = SumsByScore(len(self.preprocess.mean), self.device)
        side = max(part.stop - part.start for tile in tiles for part in tile.seen)
        # The margin is that of a score, far less than the network's, and blocks of a cohort are read once.
        for tile, image, mask in pieces(cut_blocks((height, width), side, pseudo_labels.neighbourhood // 2)):
            cube, seen = self._tensors(image, mask)
            core = torch.zeros_like(seen)
            core[..., *tile.inner] = tissue[..., *tile.core] = seen[..., *tile.inner]
            scored = score_tile(self.preprocess, pseudo_labels, cube, seen, core, sums)
            score[..., *tile.core] = self._finite(scored)[..., *tile.inner]
        ordinary = (tissue & ~pseudo_labels.marked(score, tissue))[tissue]
        return pseudo_labels.background(sums.total(score[tissue], ordinary).float()[None], ordinary.sum().view(1, 1))

    def tiles(self, shape: tuple[int, ...], side: int | None = None, overlap: int | None = None) -> list[Tile]:
        """How to cut an image so that memory stays bounded.

        Args:
            shape: `(H, W)` of the image.
            side: Largest side of what a tile sees, pixels; None: what is fastest and fits into `TILE_MEMORY`.
            overlap: Margin around a tile's core, pixels; None: the network's radius, so that there are no seams.

        Returns:
            Tiles whose cores partition the image; a small image is one tile.

        Raises:
            CompsegError: A side or an overlap that is no number of pixels.
        """
        require(side is None or side >= 1, f"tile={side}: expected a number of pixels, at least 1; leave it out")
        require(overlap is None or overlap >= 0, f"overlap={overlap}: expected a number of pixels; leave it out")
        network = receptive_field_of(self.model)
        overlap = network.radius if overlap is None else overlap
        if side is None:
            margin = 0 if self._windowed is None else overlap
            side = largest_side(self.model, self.channels.count, np.dtype(self.dtype).itemsize, TILE_MEMORY, margin)
            # Where seams would show, an image stays whole as long as memory allows.
            side = side if network.problem else min(side, FASTEST_SIDE + 2 * overlap)
        return cut((shape[0], shape[1]), side, overlap, network.stride)

    def activation(
        self, image: Image, tissue: Mask, background: Tensor | None = None, core: Window | None = None
    ) -> NDArray[np.float32]:
        """The activation map of one image or tile `(H, W, C)` in one piece, `(H, W)` or that of its core.

        Without tissue there is nothing to compute.

        Args:
            image: Raw values.
            tissue: `(H, W)` bool.
            background: Of the whole image, if this is a tile of it: see `background`.
            core: The part to return; None: all.

        Raises:
            CompsegError: If the channels are not the model's, or tissue pixels not finite.
        """
        image = self._checked(image)
        wanted = tissue if core is None else tissue[core]
        # In a mosaic most tiles at the rim hold background alone.
        if not tissue.any():
            return np.zeros(wanted.shape, np.float32)
        return activation_of(self.logits_of(self.network_input(image, tissue, background), core), wanted)

    @torch.inference_mode()
    def logits(self, image: Image, tissue: Mask) -> Tensor:
        """The logits `(1, M, H, W)` of one image `(H, W, C)`, float32, on the model's device."""
        return self.logits_of(self.network_input(image, tissue))

    @torch.inference_mode()
    def logits_of(self, given: Tensor, core: Window | None = None) -> Tensor:
        """The logits `(1, M, H, W)` of a network input, or those of its core, float32.

        A network that has a method `forward_window`, such as `models.UNet`, computes the core alone.
        """
        if core is not None and (network := self._windowed) is not None:
            return network.forward_window(given, core).float()
        logits: Tensor = self.model(given).float()
        return logits if core is None else logits[..., *core]

    def logits_of_parts(self, given: Tensor, core: Window | None = None) -> list[Tensor]:
        """The logits of each of `parts`."""
        return [self.logits_of(given, core)]

    @property
    def _windowed(self) -> MapsWindows | None:
        return (
            # A norm that averages needs all that the tile sees, or maps would differ more at the seams.
            self.model if isinstance(self.model, MapsWindows) and not receptive_field_of(self.model).problem else None
        )

    @torch.inference_mode()
    def network_input(self, image: Image, tissue: Mask, background: Tensor | None = None) -> Tensor:
        """What the model is given of an image `(H, W, C)`: `(1, C, H, W)` float32 in channels_last memory.

        Raises:
            CompsegError: If tissue pixels are not finite.
        """
        given = network_input(self.preprocess, self.pseudo_labels, *self._tensors(image, tissue), background)
        # A background is finite if the image is: it was found so.
        return given if background is not None else self._finite(given)

    def _tensors(self, image: Image, tissue: Mask) -> tuple[Tensor, Tensor]:
        """`(1, C, H, W)` in channels_last memory and `(1, 1, H, W)`."""
        # Rounded to the cohort's type first: a file then gives the same map as the sample in the cohort.
        cube = torch.from_numpy(np.ascontiguousarray(image, dtype=self.dtype)).to(self.device)
        mask = torch.from_numpy(np.ascontiguousarray(tissue)).to(self.device)
        # Channels are last in memory already: permuting gives torch's channels_last format without a copy.
        return cube.permute(2, 0, 1)[None], mask[None, None]

    def _finite(self, given: Tensor) -> Tensor:
        # One sum instead of a mask of all values: NaN and infinity survive it.
        if not given.sum().isfinite():
            raise CompsegError(
                f"holds NaN or infinite values, or some beyond {self.dtype}; "
                "replace them, for example by zero outside the tissue"
            )
        return given

    def _checked(self, image: Image, axis: Axis | None = None, unit: str = "") -> Image:
        if not isinstance(image, np.ndarray):
            raise CompsegError(
                f"segmenter: expected a NumPy array (H, W, {self.channels.count}), got {type(image).__name__}; "
                "read the file first, or map files with compseg.predict"
            )
        image = image[..., None] if image.ndim == 2 else image
        if axis is not None:
            given = channels_of(axis, unit)
            require(image.shape[-1] == given.count, f"axis: {given.count} channels for an image of {image.shape}")
            image = align(given, self.channels, "image")(image)
        self.check(image.shape)
        return image

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse an image of another shape than `(H, W, C)` with the model's channels.

        Raises:
            CompsegError: It is one.
        """
        require(len(shape) == 3 and shape[2] == self.channels.count, self.mismatch(shape))

    def mismatch(self, shape: tuple[int, ...]) -> str:
        """What is wrong with an image of another number of channels."""
        return (
            f"image of shape {shape}: expected (H, W, {self.channels.count}), the channels that this segmenter was "
            "trained on; give images with the same channels, last"
        )

    def with_threshold(self, threshold: Threshold) -> Segmenter:
        """The same segmenter with another threshold."""
        return replace(self, threshold=threshold)

    def save(self, folder: Path) -> None:
        """Write `segmenter.json` and `weights.safetensors`, each atomically.

        The description comes last: without it the folder is no segmenter.
        """
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"model": self.model, "preprocess": self.preprocess, "pseudo_labels": self.pseudo_labels}
        weights = write_weights(folder, {name: part.state_dict() for name, part in parts.items() if part is not None})
        self._write_description(folder, weights)
        # After the description: until that is replaced, it names the old weights.
        (folder / OLD_WEIGHTS).unlink(missing_ok=True)

    def save_description(self, folder: Path) -> None:
        """Write `segmenter.json` beside the weights that are there, for example after fitting a threshold.

        A folder of an older format is saved as a whole.
        """
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        # The stored checksum is kept and not computed again, which would declare a damaged file to be sound.
        if "weights" in description:
            self._write_description(folder, description["weights"])
        else:
            self.save(folder)

    def _write_description(self, folder: Path, weights: dict[str, Any]) -> None:
        description = {
            "format": FORMAT,
            # The weights are in the folder: whoever loads it must not fetch those that training began with.
            "model": without_fetching(self.model_node),
            "preprocess": self.preprocess_node,
            "pseudo_labels": self.pseudo_labels_node,
            "channels": self.channels.to_dict(),
            "tissue_rule": self.tissue_rule,
            "dtype": self.dtype,
            "input": self.input.to_dict(),
            "threshold": self.threshold.to_dict() if self.threshold else None,
            "provenance": self.provenance,
            "weights": weights,
        }
        atomic_json(folder / DESCRIPTION, {**description, "sha256": checksum_of(description)})


def activation_of(logits: Tensor, tissue: Mask) -> NDArray[np.float32]:
    """The activation map `(H, W)`, zero outside the tissue, of logits `(1, M, H, W)`.

    Prediction and evaluation share it, so that their numbers are always the same.
    """
    return np.where(tissue, torch.sigmoid(logits[0, 0]).cpu().numpy(), np.float32(0))


def load_segmenter(path: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()) -> Segmenter:
    """Load an extracted segmenter. It may come from a stranger: see SECURITY.md for what is checked.

    Args:
        path: A run folder, its `segmenter/` folder, or the folder of an ensemble.
        device: Where to compute.
        trust: Packages, beyond compseg's own and the known network libraries, whose network classes the description may
            build (`["mylab"]`), or the full name of one class or function (`["mylab.nets.make"]`).

    Returns:
        A callable from raw cubes `(H, W, C)` to maps `(H, W)`, in evaluation mode.

    Raises:
        CompsegError: If the folder holds no segmenter, one of a newer format, a damaged one, or one that asks for code,
            arguments or memory that it may not have.
    """
    if (Path(path) / ENSEMBLE).is_file():
        from compseg.inference.ensemble import load_ensemble  # which is made of segmenters

        return load_ensemble(Path(path), device, trust)
    folder = find_folder(Path(path))
    plain = read_description(folder)
    parts = _parts(folder, plain, trust)
    channels, preprocess = plain["channels"], parts["preprocess"]
    if len(preprocess.mean) != (count := count_after(preprocess.corrections, channels.count)):
        raise CompsegError(
            f"{folder / DESCRIPTION}: preprocess.channels={len(preprocess.mean)}, expected {count}, "
            "the number of channels; extract the segmenter again from the run"
        )
    nodes = {f"{part}_node": plain[part] for part in PARTS}
    described = {key: plain[key] for key in ("channels", "tissue_rule", "dtype", "input", "threshold", "provenance")}
    return Segmenter(**parts, **nodes, **described).to(device)


def _parts(folder: Path, plain: Mapping[str, Any], trust: Sequence[str]) -> dict[str, Any]:
    """The modules that a description names, with their weights."""
    weights = open_weights(folder, plain)
    asked = {part: kind for part, kind in PARTS.items() if plain[part] is not None}
    parts: dict[str, Any] = {
        part: build_safe(
            plain[part],
            kind,
            f"{folder / DESCRIPTION}: {part}",
            trust=trust,
            shapes=weights.shapes.get(part, {}),
            file_size=weights.size,
        )
        for part, kind in asked.items()
    }
    # Only now does memory go to weights: names and shapes are known to fit.
    states = weights.read()
    for part, module in parts.items():
        module.load_state_dict(states[part])
    return parts
