"""Pools: from logits `(B, M, H, W)` and tissue `(B, 1, H, W)` bool to a pooled activation x `(B,)` in [0, 1].

Every pool reads tissue pixels only, ignores where they lie, and gives 0 for a sample without tissue. z is a pixel's
logit in map 0, a = sigmoid(z), N the number of tissue pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from compseg.errors import require


def masked_mean(values: Tensor, tissue: Tensor) -> Tensor:
    """Mean of `values` `(B, 1, H, W)` over `tissue` (bool, same shape): `(B,)`, and 0 where there is no tissue."""
    # Not times the mask: off tissue a value may be infinite, and 0 times infinity is NaN.
    total = values.where(tissue, 0).flatten(1).sum(1)
    return total / tissue.flatten(1).sum(1).clamp(min=1)


def _lowest_outside(values: Tensor, tissue: Tensor) -> Tensor:
    """Values `(B, 1, H, W)` as `(B, H*W)`, the lowest finite number outside the tissue."""
    # Not -inf: a sample without tissue then has a gradient of 0 instead of NaN.
    return values.masked_fill(~tissue, torch.finfo(values.dtype).min).flatten(1)


def _masked_log_mean_exp(values: Tensor, tissue: Tensor) -> Tensor:
    """`log((1/N) sum exp(values))` over the tissue: `(B,)`, the lowest finite number where there is none."""
    # exp alone would overflow float32 at r = 10 from a logit of 8.9 on.
    return _lowest_outside(values, tissue).logsumexp(1) - tissue.flatten(1).sum(1).clamp(min=1).log()


def _descending(values: Tensor, tissue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values `(B, 1, H, W)` in descending order, those outside the tissue last.

    Returns:
        The values `(B, H*W)`, their ranks `(H*W,)` from 0, and the number of tissue pixels `(B, 1)`.
    """
    ordered = _lowest_outside(values, tissue).sort(dim=1, descending=True).values
    return ordered, torch.arange(ordered.shape[1], device=ordered.device), tissue.flatten(1).sum(1, keepdim=True)


class MeanPool(nn.Module):
    """`x = (1/N) sum a`: the fraction of the tissue that is active. The paper's pool.

    The paper lets the pooling neuron "count" active pixels (section 3.1) and calls alpha a percentage of the tissue, so
    the count is divided by N. Elsewhere: global average pooling (Lin et al., arXiv 1312.4400).
    """

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return masked_mean(torch.sigmoid(logits[:, :1]), tissue)


class MaxPool(nn.Module):
    """`x = max a` (Oquab et al., CVPR 2015): one active pixel is enough."""

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return torch.sigmoid(_lowest_outside(logits[:, :1], tissue).amax(1))


class LogSumExpPool(nn.Module):
    """`x = sigmoid((1/r) log((1/N) sum exp(r z)))` (Pinheiro and Collobert, arXiv 1411.6228).

    Args:
        r: Sharpness, above 0: towards 0 the mean of the logits, towards infinity their maximum.

    Raises:
        CompsegError: r is not above 0.
    """

    def __init__(self, r: float = 10.0) -> None:
        super().__init__()
        require(r > 0, f"head.pool.r: expected a number above 0, got {r}; 10 is usual")
        self.r = r

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return torch.sigmoid(_masked_log_mean_exp(self.r * logits[:, :1], tissue) / self.r)


class GeneralizedMeanPool(nn.Module):
    """`x = ((1/N) sum a^r)^(1/r)` (DWS-MIL, Jia et al., arXiv 1701.00794).

    Computed from log a, which needs no small number under the root to keep gradients finite at a = 0.

    Args:
        r: Exponent, above 0: 1 is the mean, towards infinity the maximum.

    Raises:
        CompsegError: r is not above 0.
    """

    def __init__(self, r: float = 4.0) -> None:
        super().__init__()
        require(r > 0, f"head.pool.r: expected a number above 0, got {r}; the source's is 4")
        self.r = r

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        return torch.exp(_masked_log_mean_exp(self.r * logsigmoid(logits[:, :1]), tissue) / self.r)


class NoisyOrPool(nn.Module):
    """`x = 1 - (prod (1 - a))^(n/N)` (Zhang, Platt and Viola, NIPS 2005, where n = N).

    Neighbouring pixels repeat one another: N of them are not N independent witnesses, and with n = N an image of 65536
    pixels at a = 0.001 already gives x = 1. Here the tissue holds n independent regions at any resolution.

    Args:
        regions: n, above 0. Where n times the mean of -log(1 - a) exceeds 16, x is 1 in float32 and a healthy sample
            has no gradient left: with n = 4 from a mean logit of 4, with n = 16 from one of 0.5.

    Raises:
        CompsegError: `regions` is not above 0.
    """

    def __init__(self, regions: float = 4.0) -> None:
        super().__init__()
        require(regions > 0, f"head.pool.regions: expected a number above 0, got {regions}; 4 is usual")
        self.regions = regions

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        # log(1 - a) = -softplus(z): nothing is rounded to 0 or 1 on the way.
        return -torch.expm1(-self.regions * masked_mean(softplus(logits[:, :1]), tissue))


class NoisyAndPool(nn.Module):
    """Sigmoid-shaped in the mean activation, with a learned threshold (Kraus, Ba and Frey, arXiv 1511.05286).

    With m the mean activation, A the slope and s the logistic function,
    `x = (s(A (m - b)) - s(-A b)) / (s(A (1 - b)) - s(-A b))`: 0 at m = 0, 1 at m = 1, steepest at m = b.
    The nearest published relative of the paper's sigma; b takes the role of alpha, but is learned.

    Args:
        slope: A, above 0.
        threshold: b before training, a fraction of the tissue.

    Raises:
        CompsegError: `slope` is not above 0.
    """

    def __init__(self, slope: float = 10.0, threshold: float = 0.1) -> None:
        super().__init__()
        require(slope > 0, f"head.pool.slope: expected a number above 0, got {slope}; 10 is usual")
        self.slope = slope
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        mean = masked_mean(torch.sigmoid(logits[:, :1]), tissue)
        low, high, here = (
            torch.sigmoid(self.slope * (m - self.threshold))
            for m in (torch.zeros_like(mean), torch.ones_like(mean), mean)
        )
        return (here - low) / (high - low)


class RankPool(nn.Module):
    """Global weighted rank pooling, GWRP (SEC, Kolesnikov and Lampert, arXiv 1603.06098).

    With the activations in descending order, `x = sum d^(j-1) a_(j) / sum d^(j-1)`. SEC fixes d for maps of 41 x 41;
    here `d = 1 - 1 / (rho N)`, so that the same share of the tissue counts at every size.

    Args:
        rho: The share of the tissue that carries the weight, above 0: towards 0 the maximum, for large rho the mean.

    Raises:
        CompsegError: rho is not above 0.
    """

    def __init__(self, rho: float = 0.3) -> None:
        super().__init__()
        require(rho > 0, f"head.pool.rho: expected a fraction above 0, got {rho}; 0.3 is usual")
        self.rho = rho

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        ordered, rank, size = _descending(torch.sigmoid(logits[:, :1]), tissue)
        # At rho N <= 1 only the maximum is left; a value just above 1 gives the same and keeps log d finite.
        log_d = torch.log1p(-1 / (self.rho * size).clamp(min=1 + 1e-6))
        weights = torch.exp(rank * log_d) * (rank < size)
        # The first weight is 1, so clamping changes nothing but 0 / 0 without tissue.
        return (weights * ordered).sum(1) / weights.sum(1).clamp(min=1)


class TopKPool(nn.Module):
    """WILDCAT's pool (Durand et al., CVPR 2017): highest logits plus, at a smaller weight, lowest logits.

    `x = sigmoid((mean of the k highest z + weight * mean of the k lowest z) / 2)` with k = `share` of the N tissue
    pixels, at least one. The authors' code halves the sum, too.

    Args:
        share: k / N in (0, 1].
        lowest: Weight of the lowest logits, 0 or more.

    Raises:
        CompsegError: A value is out of its range.
    """

    def __init__(self, share: float = 0.2, lowest: float = 0.7) -> None:
        super().__init__()
        require(0 < share <= 1, f"head.pool.share: expected a fraction in (0, 1], got {share}; the source's is 0.2")
        require(lowest >= 0, f"head.pool.lowest: expected 0 or more, got {lowest}; the source's is 0.7")
        self.share, self.lowest = share, lowest

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        ordered, rank, size = _descending(logits[:, :1], tissue)
        k = (self.share * size).round().clamp(min=1)
        highest = (rank < k) & (rank < size)
        lowest = (rank >= size - k) & (rank < size)
        weights = (highest + self.lowest * lowest) / (2 * k)
        # Without tissue the score is 0, whose sigmoid would be 0.5.
        return torch.sigmoid((weights * ordered).sum(1)).where(size[:, 0] > 0, 0)


class LogitMeanPool(nn.Module):
    """`x = sigmoid((1/N) sum z)`: global average pooling before the classifier (Zhou et al., CVPR 2016).

    A segmenter ends in a 1x1 convolution, which is linear, so averaging the features and then classifying them, as
    Zhou et al. do, equals classifying and then averaging, as is done here. So the logits are the class activation map
    (CAM) of the classifier, and sigmoid(z) is the probability of a sample that looks like this pixel everywhere.
    `MeanPool` applies sigmoid and mean in the other order: there a pixel's activation counts, not its evidence.

    Args:
        map: The classifier's map, -1 for the last: a Grad-CAM is put before it.
    """

    def __init__(self, map: int = 0) -> None:
        super().__init__()
        self.map = map

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1]."""
        score = masked_mean(logits[:, self.map, None], tissue)
        # Without tissue the score is 0, whose sigmoid would be 0.5.
        return torch.sigmoid(score).where(tissue.flatten(1).any(1), 0)


class AttentionPool(nn.Module):
    """Attention pooling (Ilse, Tomczak and Welling, arXiv 1802.04712), with the segmenter's second map as attention.

    `x = sigmoid(sum w z)`, w the softmax of map 1 over the tissue. The disease map is still map 0: attention tells
    where the pool looked for evidence, not what it found there.
    """

    def forward(self, logits: Tensor, tissue: Tensor) -> Tensor:
        """Logits `(B, M >= 2, H, W)` and tissue `(B, 1, H, W)` to x `(B,)` in [0, 1].

        Raises:
            CompsegError: The segmenter gives one map.
        """
        maps = logits.shape[1]
        require(maps >= 2, f"method.maps: attention expected 2 (disease, attention), got {maps}; set method.maps=2")
        attention = _lowest_outside(logits[:, 1:2], tissue).softmax(1)
        # Logits outside are zeroed, too: a weight of 0 times an infinite logit is NaN.
        score = (attention * logits[:, :1].where(tissue, 0).flatten(1)).sum(1)
        return torch.sigmoid(score).where(tissue.flatten(1).any(1), 0)
