"""How sure a map is of a pixel: how far its activation differs between views of the same sample, rotated and flipped.

Tissue has no direction, so what a network says of a pixel should not depend on how the sample lies; where it does, the
pixel is near what the network cannot tell apart. As test-time augmentation (Wang et al., Neurocomputing 338:34, 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compseg.evaluation.curves import SampleMap
from compseg.inference import Segmenter, Threshold
from compseg.samples import Image, Mask

VIEWS = [(flip, quarter) for flip in (False, True) for quarter in range(4)]
BINS = 8

Spread = NDArray[np.float32]


@torch.inference_mode()
def spread_of(segmenter: Segmenter, image: Image, tissue: Mask) -> Spread:
    """The standard deviation of the activation over all eight rotations and reflections of a sample.

    Args:
        segmenter: The segmenter.
        image: `(H, W, C)` raw values.
        tissue: `(H, W)` bool.

    Returns:
        `(H, W)` float32 in [0, .5], zero off tissue.
    """
    given, views = segmenter.network_input(image, tissue), []
    for flip, quarter in VIEWS:
        seen = torch.rot90(given.flip(3) if flip else given, quarter, (2, 3))
        back = torch.rot90(segmenter.logits_of(seen)[:, :1], -quarter, (2, 3))
        views.append(torch.sigmoid(back.flip(3) if flip else back))
    spread = torch.cat(views).std(0, correction=0)[0].cpu().numpy()
    return np.where(tissue, spread, np.float32(0))


def errors_by_spread(val: Iterable[tuple[SampleMap, Spread]], threshold: Threshold) -> dict[str, list[Any]] | None:
    """How often pixels are marked wrongly, in bins of about the same number of tissue pixels by their spread.

    Args:
        val: Validation samples with truth, and the spread of each.
        threshold: Above which pixels are marked.

    Returns:
        Mean spread, share that is wrong and number of pixels of each bin; None without samples.
    """
    parts = [
        (spread[item.tissue], (threshold.apply(item.activation, item.tissue) != item.region)[item.tissue])
        for item, spread in val
    ]
    if not parts:
        return None
    spread, wrong = (np.concatenate(each) for each in zip(*parts, strict=True))
    bins = [each for each in np.array_split(np.argsort(spread, kind="stable"), BINS) if len(each)]
    return {
        "spread": [float(spread[each].mean()) for each in bins],
        "wrong": [float(wrong[each].mean()) for each in bins],
        "pixels": [len(each) for each in bins],
    }
