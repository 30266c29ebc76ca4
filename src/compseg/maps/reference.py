"""What the pixels of a whole image are compared with, where it is read in tiles.

Needs torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from compseg.comparative import FisherTeacher
from compseg.comparative.teacher import spectra_sum
from compseg.maps.tiling import Tile

Preprocessed = Callable[[], Iterable[tuple[Tile, Tensor, Tensor]]]
"""Gives each tile of an image with what it sees: preprocessed `(1, C, h, w)` and tissue `(1, 1, h, w)` bool."""


@torch.inference_mode()
def reference_of_tiles(teacher: FisherTeacher, shape: tuple[int, int], tiles: Preprocessed) -> Tensor:
    """The teacher's reference `(1, C)` of an image `(H, W)`, as if it were read in one piece.

    The tiles are gone through twice: to score all pixels, then to average those that are not marked.
    """
    device = teacher.filter.device
    score, tissue = torch.zeros(1, 1, *shape, device=device), torch.zeros(1, 1, *shape, dtype=torch.bool, device=device)
    for tile, image, seen in tiles():
        score[..., *tile.core] = teacher.score(image, seen)[..., *tile.inner]
        tissue[..., *tile.core] = seen[..., *tile.inner]
    ordinary = tissue & ~teacher.marked(score, tissue)
    total = torch.zeros(1, len(teacher.filter), device=device)
    for tile, image, _ in tiles():
        total += spectra_sum(image[..., *tile.inner], ordinary[..., *tile.core])
    return teacher.reference(total, ordinary.sum((2, 3)))
