"""The paper's idea: pool a sample's activation map, transfer it to one number, compare that number with the label.

Read in this order: `transfers` (the pooling neuron's sigma), `pools` (from a map to a fraction), `head` (both
together), `losses` (what a label asks of the result), `regularisers` (what may be asked besides), `pseudo_labels` (a
first answer without a network). The room imports torch alone.
"""

from compseg.comparative.head import ComparativeHead, HeadOutput, SigmaHead, TrapezoidHead
from compseg.comparative.losses import (
    LogBarrier,
    Objective,
    PixelBCE,
    PooledLoss,
    PositiveUnlabelled,
    Sum,
    SupervisedPixels,
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
    masked_mean,
)
from compseg.comparative.pseudo_labels import EncoderPseudoLabels, FisherPseudoLabels, PseudoLabels, sum_of_spectra
from compseg.comparative.regularisers import (
    DenseNegatives,
    Entropy,
    FlipConsistency,
    MeanTeacher,
    OutsideTissue,
    RotationConsistency,
    SizePenalty,
    SpectralCRF,
    TotalVariation,
)
from compseg.comparative.transfers import Identity, Sigma, Transfer, Trapezoid

__all__ = [
    "AttentionPool",
    "ComparativeHead",
    "DenseNegatives",
    "EncoderPseudoLabels",
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
    "PseudoLabels",
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
    "masked_mean",
    "mean_over_ranks",
    "sum_of_spectra",
]
