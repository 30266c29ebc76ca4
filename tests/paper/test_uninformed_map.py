"""What the printed loss says to a map that tells no sample from another: what docs/paper.md says about collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from compseg.comparative import Sigma
from compseg.config import compose

LEVELS = torch.linspace(0.001, 0.999, 500)
SHARE_OF_CROSSING = LEVELS / Sigma().crossing
BELOW, ABOVE = SHARE_OF_CROSSING < 0.999, SHARE_OF_CROSSING > 1.001


def losses_and_pulls(objective: str) -> tuple[Tensor, Tensor]:
    """By level x: the loss of a healthy and a disease sample that are both active to a share x, and its slope on x."""
    cfg = compose("train", ["experiment=paper", f"objective={objective}"])
    head, loss = instantiate(cfg.head), instantiate(cfg.objective)
    logits = torch.logit(LEVELS).requires_grad_()
    maps = logits[:, None, None, None].expand(-1, 1, 4, 4)
    out = head(maps, torch.ones(len(LEVELS), 1, 4, 4, dtype=torch.bool))
    each = [loss.statistics(out, torch.full_like(LEVELS, label))[:, 0] for label in (0.0, 1.0)]
    both = (each[0] + each[1]) / 2
    (pull,) = torch.autograd.grad(both.sum(), logits)
    return both.detach(), pull / (LEVELS * (1 - LEVELS))


@pytest.mark.parametrize("objective", ["printed", "one_sided"])
def test_below_the_crossing_nothing_moves_it_and_above_it_sinks(objective: str):
    losses, pulls = losses_and_pulls(objective)
    np.testing.assert_allclose(losses[BELOW], 0.05, atol=1e-7)
    np.testing.assert_allclose(pulls[BELOW], 0, atol=1e-6)
    assert (pulls[ABOVE] > 0.0004).all()  # gamma, or half of it


def test_with_the_maximum_as_target_nothing_moves_it_anywhere():
    losses, pulls = losses_and_pulls("maximum")
    np.testing.assert_allclose(losses, 0.0505, atol=1e-7)
    np.testing.assert_allclose(pulls, 0, atol=1e-6)
