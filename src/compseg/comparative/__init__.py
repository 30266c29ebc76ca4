"""The paper's idea: pool a sample's activation map, transfer it to one number, compare that number with the label.

Read in this order: `transfers` (the pooling neuron's sigma), `pools` (from a map to a fraction), `head` (both
together), `objectives` (what a label asks of the result), `pseudo_labels` (a first answer without a network). The room
imports torch alone.
"""

from compseg.comparative.head import ComparativeHead, HeadOutput, SigmaHead, TrapezoidHead
from compseg.comparative.objectives import (
    DenseNegatives,
    Entropy,
    FlipConsistency,
    LogBarrier,
    MeanTeacher,
    Objective,
    OutsideTissue,
    PixelBCE,
    PooledLoss,
    PositiveUnlabelled,
    RotationConsistency,
    SizePenalty,
    SpectralCRF,
    Sum,
    SupervisedPixels,
    TotalVariation,
    TwoMap,
    WeightedCrossEntropy,
    mean_over_ranks,
)
from compseg.comparative.pools import (
    AttentionPool,
    GeneralizedMeanPool,
    LogitMeanPool,
    LogSumExpPool,
    MaxPool,
    MeanPool,
    NoisyAndPool,
    NoisyOrPool,
    RankPool,
    TopKPool,
)
from compseg.comparative.pseudo_labels import FisherPseudoLabels
from compseg.comparative.transfers import Identity, Sigma, Transfer, Trapezoid

__all__ = [
    "AttentionPool",
    "ComparativeHead",
    "DenseNegatives",
    "Entropy",
    "FisherPseudoLabels",
    "FlipConsistency",
    "GeneralizedMeanPool",
    "HeadOutput",
    "Identity",
    "LogBarrier",
    "LogSumExpPool",
    "LogitMeanPool",
    "MaxPool",
    "MeanPool",
    "MeanTeacher",
    "NoisyAndPool",
    "NoisyOrPool",
    "Objective",
    "OutsideTissue",
    "PixelBCE",
    "PooledLoss",
    "PositiveUnlabelled",
    "RankPool",
    "RotationConsistency",
    "Sigma",
    "SigmaHead",
    "SizePenalty",
    "SpectralCRF",
    "Sum",
    "SupervisedPixels",
    "TopKPool",
    "TotalVariation",
    "Transfer",
    "Trapezoid",
    "TrapezoidHead",
    "TwoMap",
    "WeightedCrossEntropy",
    "mean_over_ranks",
]
