"""What training asks of any pseudo-labeller."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torch import Tensor, nn


class PseudoLabels(nn.Module):
    """Fitted to labels before any network is trained; then it says where the disease of disease samples lies.

    Attributes:
        rounds: Of fitting, at most; for showing how far it is.
        round_name: What they are called then.
        contrasts: Whether the network reads contrasts that it computes, and so needs it for prediction as well.
        supervises: Whether the objective takes the marked region for truth.
        small: Whether it marks targets of a few pixels.
        share: What is marked of the disease samples' tissue, in [0, 1], fitted.
        low_share: What a tenth of the disease samples fitted to have less than marked, a share of their tissue; NaN
            before fitting.
        held_out_auc: How well what is marked predicts the labels of samples it was not fitted to, area under the ROC;
            NaN before fitting, and with fewer than two samples of a class.
    """

    rounds: int
    round_name: str = "rounds of at most"
    contrasts: bool
    share: Tensor
    supervises: bool = True
    small: bool = False
    low_share: float = math.nan
    held_out_auc: float = math.nan

    def fit(
        self, samples: Iterable[tuple[Tensor, Tensor, int]], count: int, seed: int, rounds: Iterable[object]
    ) -> None:
        """Learn what tells disease samples.

        Args:
            samples: Preprocessed image `(C, H, W)`, tissue `(1, H, W)` and label of each training sample, one at a
                time; they may be gone through again.
            count: Number of samples.
            seed: Of all that is left to chance.
            rounds: Of fitting, at most; whoever gives them sees how far it is.
        """
        raise NotImplementedError

    def found(self) -> Iterator[str]:
        """Lines on what a fitted pseudo-labeller finds, and what shows that it is there."""
        raise NotImplementedError

    def forward(self, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
        """What is marked of preprocessed images `(B, C, H, W)`, from tissue `(B, 1, H, W)` and labels `(B,)`.

        `(B, 1, H, W)`, bool or a probability: nothing in healthy samples.
        """
        raise NotImplementedError
