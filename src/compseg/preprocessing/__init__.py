"""From raw values to network input: tissue rule, corrections, standardisation. Saved with the model."""

from __future__ import annotations

from compseg.preprocessing.preprocess import (
    Derivative,
    Detrend,
    Preprocess,
    StandardNormalVariate,
    VectorNorm,
    fit_standardisation,
)
from compseg.preprocessing.tissue import resolve_rule, tissue_mask

__all__ = [
    "Derivative",
    "Detrend",
    "Preprocess",
    "StandardNormalVariate",
    "VectorNorm",
    "fit_standardisation",
    "resolve_rule",
    "tissue_mask",
]
