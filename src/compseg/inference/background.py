"""What the pixels of a whole image are compared with, where it is read in tiles.

Needs torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from compseg.comparative import FisherPseudoLabels
from compseg.comparative.pseudo_labels import sum_of_spectra
from compseg.inference.tiling import Tile

Preprocessed = Callable[[], Iterable[tuple[Tile, Tensor, Tensor]]]
"""Gives each tile of an image with what it sees: preprocessed `(1, C, h, w)` and tissue `(1, 1, h, w)` bool."""


@torch.inference_mode()
def background_of_tiles(pseudo_labels: FisherPseudoLabels, shape: tuple[int, int], tiles: Preprocessed) -> Tensor:
    """The pseudo-labeller's reference `(1, C)` of an image `(H, W)`, as if it were read in one piece.

    The tiles are gone through twice: to score all pixels, then to average those that are not marked.
    """
    device = pseudo_labels.filter.device
    score, tissue = torch.zeros(1, 1, *shape, device=device), torch.zeros(1, 1, *shape, dtype=torch.bool, device=device)
    for tile, image, seen in tiles():
        score[..., *tile.core] = pseudo_labels.score(image, seen)[..., *tile.inner]
        tissue[..., *tile.core] = seen[..., *tile.inner]
    ordinary = tissue & ~pseudo_labels.marked(score, tissue)
    total = torch.zeros(1, len(pseudo_labels.filter), device=device)
    for tile, image, _ in tiles():
        total += sum_of_spectra(image[..., *tile.inner], ordinary[..., *tile.core])
    return pseudo_labels.background(total, ordinary.sum((2, 3)))
