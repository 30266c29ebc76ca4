"""What happens to a spectrum before a network sees it: tissue rule, corrections, standardisation.

Saved with the model.
"""

from compseg.preprocessing.corrections import Derivative, Detrend, StandardNormalVariate, VectorNorm
from compseg.preprocessing.preprocess import Preprocess, fit_standardisation
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
