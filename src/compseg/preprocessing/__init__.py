"""From raw values to network input: tissue rule, corrections, standardisation. Saved with the model."""

from __future__ import annotations

from compseg.preprocessing.emsc import EMSC
from compseg.preprocessing.mie import ResonantMie
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
    "EMSC",
    "Derivative",
    "Detrend",
    "Preprocess",
    "ResonantMie",
    "StandardNormalVariate",
    "VectorNorm",
    "fit_standardisation",
    "resolve_rule",
    "tissue_mask",
]
