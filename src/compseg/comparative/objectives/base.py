"""What an objective is, how several add up, and how ranks agree on one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed, nn

from compseg.comparative.head import HeadOutput


def mean_over_ranks(local_mean: Tensor) -> Tensor:
    """The mean over all ranks, with the gradient of this rank's own mean.

    DistributedDataParallel averages gradients over the ranks, so each rank has to add its own part and no more. The
    ranks' batches must be of one size. Without a process group it is the identity.

    Args:
        local_mean: `(K,)` on each rank.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return local_mean
    own = local_mean.detach()
    total = own.clone()
    distributed.all_reduce(total)
    return local_mean + (total / distributed.get_world_size() - own)


class Objective(nn.Module):
    """A loss of the form `finish(mean over samples of statistics)`.

    A subclass gives `statistics` and, unless the loss is the plain mean of one number a sample, `columns` and `finish`.

    Args:
        weight: Factor of this objective in a `Sum`.

    Attributes:
        columns: K, how many numbers `statistics` gives a sample.
        needs_truth: Whether `statistics` reads pixel masks.
        reads: What `statistics` reads of a `HeadOutput` beyond the head's own: `image`, `turned`,
            `flipped`, `ema`.
    """

    columns: int = 1
    needs_truth: bool = False
    reads: frozenset[str] = frozenset()

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """Numbers of each sample.

        Args:
            out: What the head gave.
            labels: `(B,)` float, 1 = disease, 0 = healthy.
            truth: `(B, 1, H, W)` bool, an expert's mask; read only where `needs_truth`.

        Returns:
            `(B, K)` float32.
        """
        raise NotImplementedError

    def finish(self, means: Tensor) -> Tensor:
        """The loss, a scalar, from the means `(K,)` of the statistics over all samples."""
        return means.sum()

    def forward(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The loss over the batches of all ranks, a scalar; arguments as of `statistics`."""
        return self.finish(mean_over_ranks(self.statistics(out, labels, truth).mean(0)))


class Sum(Objective):
    """Objectives added up, each times its `weight`.

    Args:
        terms: Objectives by name.
        weight: Factor of the whole in another `Sum`.
    """

    def __init__(self, terms: Mapping[str, Objective], weight: float = 1.0) -> None:
        super().__init__(weight)
        self.terms = nn.ModuleDict(dict(terms))
        self.columns = sum(term.columns for term in terms.values())
        self.needs_truth = any(term.needs_truth for term in terms.values())
        self.reads = frozenset().union(*(term.reads for term in terms.values()))

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:
        """The terms' statistics side by side, `(B, K)`."""
        return torch.cat([term.statistics(out, labels, truth) for term in self._terms().values()], dim=1)

    def finish(self, means: Tensor) -> Tensor:
        """The weighted sum of the terms, a scalar."""
        return torch.stack(list(self.parts(means).values())).sum()

    def parts(self, means: Tensor) -> dict[str, Tensor]:
        """What each term adds to the loss, its weight included; for logging.

        Args:
            means: `(K,)` means of the statistics over all samples.
        """
        terms = self._terms()
        pieces = torch.split(means, [term.columns for term in terms.values()])
        return {
            name: term.weight * term.finish(piece) for (name, term), piece in zip(terms.items(), pieces, strict=True)
        }

    def _terms(self) -> dict[str, Objective]:
        return dict(self.terms.items())  # type: ignore[arg-type]  # ModuleDict forgets what it holds
