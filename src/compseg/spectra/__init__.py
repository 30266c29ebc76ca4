"""What happens to a spectrum before a network sees it: tissue rule, corrections, standardisation.

Saved with the model.
"""

from compseg.spectra.corrections import Derivative, Detrend, StandardNormalVariate, VectorNorm
from compseg.spectra.preprocess import Preprocess, fit_standardisation
from compseg.spectra.tissue import resolve_rule, tissue_mask

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
