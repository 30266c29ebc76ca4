"""From raw values to network input: tissue rule, corrections, standardisation. Saved with the model."""

from __future__ import annotations

from compseg.preprocessing.axis import BandNorm, Bridge, Cut, Resample, Vapour
from compseg.preprocessing.baselines import AsymmetricLeastSquares, RubberBand
from compseg.preprocessing.components import MinimumNoiseFraction, PrincipalComponents
from compseg.preprocessing.emsc import EMSC
from compseg.preprocessing.mie import ResonantMie
from compseg.preprocessing.preprocess import (
    Derivative,
    Detrend,
    Preprocess,
    StandardNormalVariate,
    VectorNorm,
    fit_corrections,
    fit_standardisation,
)
from compseg.preprocessing.tissue import resolve_rule, tissue_mask

__all__ = [
    "EMSC",
    "AsymmetricLeastSquares",
    "BandNorm",
    "Bridge",
    "Cut",
    "Derivative",
    "Detrend",
    "MinimumNoiseFraction",
    "Preprocess",
    "PrincipalComponents",
    "Resample",
    "ResonantMie",
    "RubberBand",
    "StandardNormalVariate",
    "Vapour",
    "VectorNorm",
    "fit_corrections",
    "fit_standardisation",
    "resolve_rule",
    "tissue_mask",
]
