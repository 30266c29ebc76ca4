"""Transfers: from the pooled activation x in [0, 1] to the output o of the pooling neuron."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compseg.errors import require

PAPER_ALPHA = 0.1


class Transfer(nn.Module):
    """A function of x, applied to each sample.

    Attributes:
        saturation: The o at which the transfer saturates; what the printed loss calls alpha.
        maximum: The largest o on [0, 1]; of an increasing transfer, o at x = 1.
    """

    saturation: float = 1.0
    maximum: float = 1.0


class Identity(Transfer):
    """o = x: for pools that already give a probability."""

    def forward(self, x: Tensor) -> Tensor:
        """Pooled activation `(B,)` in, the same out."""
        return x


class Sigma(Transfer):
    """The paper's transfer (section 3.2), `alpha * tanh(beta * x / (2 * alpha)) + gamma * x`.

    The paper prints `alpha * 2 * (1 + exp(-beta x / alpha))^-1 - 1 + gamma x`, which read literally is alpha - 1 at 0.
    Its own condition sigma(0) = 0 leaves one reading, `alpha * (2 / (1 + exp(-beta x / alpha)) - 1) + gamma x`, and
    that is the tanh above, which neither overflows nor cancels.

    Bounds: sigma(0) = 0. The paper says that sigma stays below alpha; only the tanh does. Sigma crosses alpha at
    `crossing` (x = 0.144624 with the paper's values) and ends at `maximum` = sigma(1). The slope falls from
    beta / 2 + gamma to gamma.

    Args:
        alpha: Level of saturation, the smallest disease fraction expected in a disease sample; above 0.
        beta: Twice the slope at 0; above 0. Sigma is half of alpha at x = 1.1 alpha / beta.
        gamma: Slope left after saturation; 0 or more.

    Raises:
        CompsegError: A value is out of its range.
    """

    def __init__(self, alpha: float = PAPER_ALPHA, beta: float = 5.0, gamma: float = 0.001) -> None:
        super().__init__()
        require(alpha > 0, f"head.alpha: expected a number above 0, got {alpha}; the paper's is 0.1")
        require(beta > 0, f"head.beta: expected a number above 0, got {beta}; the paper's is 5")
        require(gamma >= 0, f"head.gamma: expected 0 or more, got {gamma}; the paper's is 0.001")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.saturation = alpha
        self.maximum = self._at(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled activation `(B,)` in [0, 1] to output `(B,)` in [0, `maximum`]."""
        # The logistic form overflows for small alpha and loses digits near 0.
        return self.alpha * torch.tanh(x * (self.beta / (2 * self.alpha))) + self.gamma * x

    @property
    def crossing(self) -> float:
        """The x above which sigma exceeds alpha; infinite for gamma = 0, and possibly above 1.

        A loss `|o - alpha|` has its minimum there: beyond it, more activation costs more.
        """
        if self.gamma == 0:
            return math.inf
        # Found by halving, because the root has no closed form; a hundred times is beyond float64's digits.
        low, high = 0.0, self.alpha / self.gamma  # gamma * x alone is alpha at the upper end
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if self._at(middle) > self.alpha else (middle, high)
        return high

    def _at(self, x: float) -> float:
        return self.alpha * math.tanh(self.beta * x / (2 * self.alpha)) + self.gamma * x


class Trapezoid(Transfer):
    """The soft clip of the authors' later code (OpenVibSpec, `compsegnet.py`, 2022): 0, up to 1, a plateau, down to 0.

    With c = alpha + beta, `o = clip(x / alpha, 0, 1) + clip((c - x) / (1 - c), -1, 0)`: a sample that is all disease is
    as unlikely as one without any. o is 1 on [alpha, c] and lies in [0, 1].

    Args:
        alpha: Where the plateau begins, a fraction of the tissue; above 0.
        beta: Width of the plateau, 0 or more; alpha + beta is below 1.

    Raises:
        CompsegError: A value is out of its range.
    """

    def __init__(self, alpha: float = 0.05, beta: float = 0.8) -> None:
        super().__init__()
        require(alpha > 0, f"head.alpha: expected a fraction above 0, got {alpha}; the authors' is 0.05")
        fits = beta >= 0 and alpha + beta < 1
        require(fits, f"head.beta: expected 0 or more and alpha + beta below 1, got {beta} with alpha {alpha}")
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Pooled activation `(B,)` in [0, 1] to output `(B,)` in [0, 1]."""
        end = self.alpha + self.beta
        return (x / self.alpha).clamp(0, 1) + ((end - x) / (1 - end)).clamp(-1, 0)
