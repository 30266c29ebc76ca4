"""How sure a map is of a pixel: how far its activation differs between the members of an ensemble, or between views.

Tissue has no direction, so what a network says of a pixel should not depend on how the sample lies; where it does, the
pixel is near what the network cannot tell apart. As test-time augmentation (Wang et al., Neurocomputing 338:34, 2019),
and of an ensemble as Lakshminarayanan et al. (NeurIPS 2017, arXiv:1612.01474).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compseg.inference.segmenter import Segmenter
from compseg.samples import Mask, Window

VIEWS = [(flip, quarter) for flip in (False, True) for quarter in range(4)]

Spread = NDArray[np.float32]


@torch.inference_mode()
def spread_of(segmenter: Segmenter, given: Tensor, tissue: Mask, core: Window | None = None) -> Spread:
    """The standard deviation of the activation over an ensemble's members, else over all eight views of a sample.

    In tiles a view is one of the tile. It is that of the whole image where its sides are multiples of the network's
    stride; else the network pools other squares of pixels.

    Args:
        segmenter: The segmenter, or an ensemble.
        given: What its network is given, see `Segmenter.network_input`.
        tissue: `(H, W)` bool, of the core.
        core: The part that is wanted; None: all.

    Returns:
        `(H, W)` float32 in [0, .5], zero off tissue.
    """
    if len(segmenter.parts()) > 1:
        logits = segmenter.logits_of_parts(given, core)
    else:
        logits = [_seen_in_view(segmenter, given, core, flip, quarter) for flip, quarter in VIEWS]
    activation = torch.sigmoid(torch.cat([each[:, :1] for each in logits]))
    spread = activation.std(0, correction=0)[0].cpu().numpy()
    return np.where(tissue, spread, np.float32(0))


def _seen_in_view(segmenter: Segmenter, given: Tensor, core: Window | None, flip: bool, quarter: int) -> Tensor:
    """The logits of a rotated and reflected sample, as the sample lies."""
    view = torch.rot90(given.flip(3) if flip else given, quarter, (2, 3))
    window = None if core is None else _window_in_view(core, given.shape[2:], flip, quarter)
    back = torch.rot90(segmenter.logits_of(view, window), -quarter, (2, 3))
    return back.flip(3) if flip else back


def _window_in_view(core: Window, shape: torch.Size, flip: bool, quarter: int) -> Window:
    rows, columns = core
    height, width = shape
    if flip:
        columns = slice(width - columns.stop, width - columns.start)
    for _ in range(quarter):
        rows, columns = slice(width - columns.stop, width - columns.start), rows
        height, width = width, height
    return rows, columns
