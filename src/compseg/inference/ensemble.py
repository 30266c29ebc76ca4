"""Several segmenters of the same channels as one: its map is the mean of theirs."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from compseg.errors import reading, require
from compseg.files import atomic_json
from compseg.inference.folder import ENSEMBLE, checksum_of
from compseg.inference.segmenter import Pieces, Segmenter, load_segmenter
from compseg.inference.threshold import Threshold
from compseg.inference.tiling import Tile
from compseg.samples import Image, Mask, Window

MEMBERS = "members"
FORMAT, MOST = 1, 1000  # the latter of members that a stranger's folder may have loaded


class Ensemble(Segmenter):
    """A segmenter whose activation is the mean of its members', each with a preprocessing of its own.

    Its network input is that of all members, `(n, C, H, W)`. What a segmenter says of itself (channels, tissue rule,
    type) is the first member's, with which the others agree.

    Args:
        members: One at least.
        threshold: None: the mean of the members', each fitted to its own validation samples.

    Raises:
        CompsegError: Members differ in what they read.
    """

    def __init__(self, members: Sequence[Segmenter], threshold: Threshold | None = None) -> None:
        first = members[0]
        for key in ("channels", "tissue_rule", "dtype"):
            same = all(getattr(each, key) == getattr(first, key) for each in members)
            require(same, f"ensemble: its members differ in {key}; take segmenters of one cohort")
        self.members = list(members)
        super().__init__(
            first.model, first.preprocess, first.model_node, first.preprocess_node, first.channels, first.tissue_rule,
            first.dtype, threshold or _mean_of([each.threshold for each in members]), dict(first.provenance),
            first.pseudo_labels, first.pseudo_labels_node, first.input,
        )  # fmt: skip
        self.provenance["run"] = f"{len(members)} segmenters, {first.provenance.get('run')} first"

    def parts(self) -> list[Segmenter]:
        """The members."""
        return self.members

    def to(self, device: str | torch.device) -> Ensemble:
        """Move all members, in place."""
        for each in self.members:
            each.to(device)
        return self

    def background(self, tiles: Sequence[Tile], pieces: Pieces) -> Tensor | None:
        """The members' background spectra of an image in tiles, `(n, C)`; None where they need none."""
        each = [member.background(tiles, pieces) for member in self.members]
        if all(one is None for one in each):
            return None
        # Zero takes nothing away: a member that reads samples as they are has no background.
        none = torch.zeros(1, self.channels.count, device=self.device)
        return torch.cat([none if one is None else one for one in each])

    @torch.inference_mode()
    def network_input(self, image: Image, tissue: Mask, background: Tensor | None = None) -> Tensor:
        """What the members' models are given, `(n, C, H, W)`."""
        own = [None if background is None else background[i : i + 1] for i in range(len(self.members))]
        return torch.cat([each.network_input(image, tissue, one) for each, one in zip(self.members, own, strict=True)])

    @torch.inference_mode()
    def logits_of(self, given: Tensor, core: Window | None = None) -> Tensor:
        """The logits `(1, M, H, W)` of the mean activation of the members."""
        activations = [logits.sigmoid() for logits in self.logits_of_parts(given, core)]
        return torch.stack(activations).mean(0).logit(eps=1e-7)

    def logits_of_parts(self, given: Tensor, core: Window | None = None) -> list[Tensor]:
        """The logits of each member."""
        return [member.logits_of(given[i : i + 1], core) for i, member in enumerate(self.members)]

    def with_threshold(self, threshold: Threshold) -> Ensemble:
        """The same ensemble with another threshold."""
        found = copy.copy(self)
        found.threshold = threshold
        return found

    def save(self, folder: Path) -> None:
        """Write the members to `members/1` and so on, then `ensemble.json`, without which the folder is no ensemble."""
        for number, member in enumerate(self.members, 1):
            member.save(folder / MEMBERS / str(number))
        self.save_description(folder)

    def save_description(self, folder: Path) -> None:
        """Write `ensemble.json` beside the members that are there."""
        threshold = self.threshold.to_dict() if self.threshold else None
        plain: dict[str, Any] = {"format": FORMAT, "members": len(self.members), "threshold": threshold}
        atomic_json(folder / ENSEMBLE, {**plain, "sha256": checksum_of(plain)})


def _mean_of(thresholds: Sequence[Threshold | None]) -> Threshold | None:
    known = [each for each in thresholds if each is not None]
    if len(known) < len(thresholds):
        return None
    values = [each.value for each in known]
    how = f"the mean of those of {len(known)} segmenters, each fitted to its own validation samples"
    return Threshold(fmean(values), how, min(values), max(values), known[0].origin)


def load_ensemble(folder: Path, device: str | torch.device, trust: Sequence[str]) -> Ensemble:
    """Load one; its members may come from a stranger, as any segmenter.

    Raises:
        CompsegError: It, or a member, is damaged.
    """
    path = folder / ENSEMBLE
    with reading(path, "copy the whole folder again, its members included"):
        require(path.stat().st_size < 2**20, f"{path}: is too large for a description")
        plain = json.loads(path.read_text(encoding="utf-8"))
        written = plain.pop("sha256")
        require(written == checksum_of(plain), f"{path}: its checksum is not that of its values; copy it again")
        number = int(plain["members"])
        require(plain["format"] == FORMAT and 1 <= number <= MOST, f"{path}: of a newer format; update compseg")
        threshold = Threshold.from_dict(plain["threshold"]) if plain["threshold"] else None
    places = [folder / MEMBERS / str(place) for place in range(1, number + 1)]
    return Ensemble([load_segmenter(place, device, trust) for place in places], threshold)
