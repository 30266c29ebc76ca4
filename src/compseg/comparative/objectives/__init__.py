"""Objectives: what the sample labels ask of a head's output. Losses first, then regularisers.

Each is `finish(mean over samples of statistics)`, so it is the same number on one device or eight.
"""

from compseg.comparative.objectives.base import Objective, Sum, mean_over_ranks
from compseg.comparative.objectives.dense_negatives import DenseNegatives
from compseg.comparative.objectives.entropy import Entropy
from compseg.comparative.objectives.log_barrier import LogBarrier
from compseg.comparative.objectives.mean_teacher import MeanTeacher
from compseg.comparative.objectives.outside_tissue import OutsideTissue
from compseg.comparative.objectives.pixel_bce import PixelBCE
from compseg.comparative.objectives.pooled import PooledLoss
from compseg.comparative.objectives.positive_unlabelled import PositiveUnlabelled
from compseg.comparative.objectives.rotation_consistency import FlipConsistency, RotationConsistency
from compseg.comparative.objectives.size_penalty import SizePenalty
from compseg.comparative.objectives.spectral_crf import SpectralCRF
from compseg.comparative.objectives.supervised import SupervisedPixels
from compseg.comparative.objectives.total_variation import TotalVariation
from compseg.comparative.objectives.two_map import TwoMap
from compseg.comparative.objectives.weighted_cross_entropy import WeightedCrossEntropy

__all__ = [
    "DenseNegatives",
    "Entropy",
    "FlipConsistency",
    "LogBarrier",
    "MeanTeacher",
    "Objective",
    "OutsideTissue",
    "PixelBCE",
    "PooledLoss",
    "PositiveUnlabelled",
    "RotationConsistency",
    "SizePenalty",
    "SpectralCRF",
    "Sum",
    "SupervisedPixels",
    "TotalVariation",
    "TwoMap",
    "WeightedCrossEntropy",
    "mean_over_ranks",
]
