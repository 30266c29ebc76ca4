"""Pools: from logits `(B, M, H, W)` and tissue `(B, 1, H, W)` bool to a pooled activation x `(B,)` in [0, 1].

Every pool reads tissue pixels only, forgets where they lie, and gives 0 for a sample without tissue. z is a pixel's
logit in map 0, a = sigmoid(z), N the number of tissue pixels.
"""

from compseg.comparative.pools.attention import AttentionPool
from compseg.comparative.pools.generalized_mean import GeneralizedMeanPool
from compseg.comparative.pools.logit_mean import LogitMeanPool
from compseg.comparative.pools.lse import LogSumExpPool
from compseg.comparative.pools.max import MaxPool
from compseg.comparative.pools.mean import MeanPool
from compseg.comparative.pools.noisy_and import NoisyAndPool
from compseg.comparative.pools.noisy_or import NoisyOrPool
from compseg.comparative.pools.rank import RankPool
from compseg.comparative.pools.topk import TopKPool

__all__ = [
    "AttentionPool",
    "GeneralizedMeanPool",
    "LogSumExpPool",
    "LogitMeanPool",
    "MaxPool",
    "MeanPool",
    "NoisyAndPool",
    "NoisyOrPool",
    "RankPool",
    "TopKPool",
]
