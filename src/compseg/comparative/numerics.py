"""Averages over the tissue, and a logarithm that never kills a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from compseg.errors import CompsegError


def require(holds: bool, message: str) -> None:
    """Refuse a value that a user gave.

    Raises:
        CompsegError: `holds` is false; `message` names the key, what was expected and what came.
    """
    if not holds:
        raise CompsegError(message)


def masked_mean(values: Tensor, tissue: Tensor) -> Tensor:
    """Mean of `values` `(B, 1, H, W)` over `tissue` (bool, same shape): `(B,)`, and 0 where there is no tissue."""
    total = values.where(tissue, 0).flatten(1).sum(1)
    return total / tissue.flatten(1).sum(1).clamp(min=1)


def masked_log_mean_exp(values: Tensor, tissue: Tensor) -> Tensor:
    """`log((1/N) sum exp(values))` over the N tissue pixels: `(B,)`, the lowest finite number where there is none."""
    # The lowest finite number, not -inf: the gradient of a sample without tissue is then 0 instead of NaN.
    kept = values.masked_fill(~tissue, torch.finfo(values.dtype).min)
    return kept.flatten(1).logsumexp(1) - tissue.flatten(1).sum(1).clamp(min=1).log()


def descending(values: Tensor, tissue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values `(B, 1, H, W)` in descending order, those outside the tissue last.

    Returns:
        The values `(B, H*W)`, their ranks `(H*W,)` from 0, and the number of tissue pixels `(B, 1)`.
    """
    kept = values.masked_fill(~tissue, torch.finfo(values.dtype).min).flatten(1)
    ordered = kept.sort(dim=1, descending=True).values
    return ordered, torch.arange(kept.shape[1], device=kept.device), tissue.flatten(1).sum(1, keepdim=True)


def negative_log(p: Tensor) -> Tensor:
    """`-log(p)` of probabilities, finite at 0.

    A small number is added instead of clipping: clipped values have no gradient, and a sample whose activation has
    collapsed to 0 could never come back.
    """
    return -torch.log(p + 1e-7)
