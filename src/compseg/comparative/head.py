"""The comparative head: the pooling neuron that a segmenter is trained through and that is discarded afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compseg.comparative.pools import MeanPool
from compseg.comparative.transfers import PAPER_ALPHA, Sigma, Transfer, Trapezoid


class HeadOutput(NamedTuple):
    """All that an objective may read of a batch; every tensor but `tissue` is float32.

    The head fills in the fields up to `maximum`; training adds those below where an objective `reads` them.

    Attributes:
        logits: `(B, M, H, W)`, as the segmenter gave them.
        activation: `(B, 1, H, W)` in [0, 1], the sigmoid of map 0: the disease map of every method.
        tissue: `(B, 1, H, W)` bool, the pixels that count.
        x: `(B,)` pooled activation in [0, 1]; 0 for a sample without tissue.
        o: `(B,)` output, the transfer of x.
        alpha: The o at which the transfer saturates; 1 for a transfer without such a level.
        maximum: The largest o; of an increasing transfer, o at x = 1.
        image: `(B, C, H, W)`, the segmenter's input.
        rotated: `(B, 1, H, W)` in [0, 1], the activation of the flipped or rotated image, brought back into place.
        flipped: The same for flips alone.
        ema: As `rotated`, by the averaged network (EMA of the segmenter's weights), without gradient.
    """

    logits: Tensor
    activation: Tensor
    tissue: Tensor
    x: Tensor
    o: Tensor
    alpha: float
    maximum: float
    image: Tensor | None = None
    rotated: Tensor | None = None
    flipped: Tensor | None = None
    ema: Tensor | None = None


class ComparativeHead(nn.Module):
    """Pool, then transfer (paper, section 3.1 and Fig. 2).

    Args:
        pool: From logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)`.
        transfer: From x to o, each `(B,)`.

    Attributes:
        acts_on: Fields of a `HeadOutput` that an argument has a part in; all others act on o alone.
    """

    acts_on: Mapping[str, frozenset[str]] = {"pool": frozenset({"x", "o"})}

    def __init__(self, pool: nn.Module, transfer: Transfer) -> None:
        super().__init__()
        self.pool, self.transfer = pool, transfer

    def forward(self, logits: Tensor, tissue: Tensor) -> HeadOutput:
        """Logits `(B, M, H, W)` of any float type and tissue `(B, 1, H, W)` bool to a `HeadOutput`.

        Raises:
            ValueError: The tissue mask does not fit the logits.
        """
        expected = (logits.shape[0], 1, *logits.shape[2:])
        # Broadcasting would let a mask of another shape pass, and pool over the wrong pixels.
        if tissue.shape != expected or tissue.dtype != torch.bool:
            got = f"{tissue.dtype} {tuple(tissue.shape)}"
            raise ValueError(f"tissue: expected torch.bool {expected} beside logits {tuple(logits.shape)}, got {got}")
        # Half precision loses a mean over 65536 pixels and a slope of 0.001.
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            x = self.pool(logits, tissue)
            o = self.transfer(x)
            activation = torch.sigmoid(logits[:, :1])
        return HeadOutput(logits, activation, tissue, x, o, self.transfer.saturation, self.transfer.maximum)


class SigmaHead(ComparativeHead):
    """The paper's head: mean activation, then `Sigma`.

    Args:
        alpha: Level of saturation. `auto`: the paper's, until training has measured the cohort.
        beta: Twice the slope at 0.
        gamma: Slope left after saturation.
        pool: Another pool than the mean over the tissue.
    """

    def __init__(
        self, alpha: float | str = PAPER_ALPHA, beta: float = 5.0, gamma: float = 0.001, pool: nn.Module | None = None
    ) -> None:
        super().__init__(pool or MeanPool(), Sigma(PAPER_ALPHA if alpha == "auto" else float(alpha), beta, gamma))


class TrapezoidHead(ComparativeHead):
    """The head of the authors' later code: mean activation, then `Trapezoid`.

    Args:
        alpha: Where the plateau begins, a fraction of the tissue.
        beta: Width of the plateau.
        pool: Another pool than the mean over the tissue.
    """

    def __init__(self, alpha: float = 0.05, beta: float = 0.8, pool: nn.Module | None = None) -> None:
        super().__init__(pool or MeanPool(), Trapezoid(alpha, beta))
