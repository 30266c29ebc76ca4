"""Draws docs/explanation/pooling-neuron.png: `python docs/explanation/pooling_neuron_figure.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from compseg.comparative import PooledLoss, Sigma, SigmaHead, Trapezoid

HERE = Path(__file__).parent
X = torch.linspace(1e-3, 1 - 1e-3, 2000)


def main() -> None:
    """Transfers, the sigma of the paper near its level, and what a disease sample pays."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    show_transfers(axes[0])
    show_sigma_near_alpha(axes[1])
    show_losses(axes[2])
    figure.savefig(HERE / "pooling-neuron.png", dpi=100)


def show_transfers(axis: plt.Axes) -> None:
    """Each over its level of saturation, so that they share one axis."""
    for label, transfer in {
        "sigma, paper (k = 0.02)": Sigma(),
        "sigma, beta = 1 (k = 0.1)": Sigma(beta=1.0),
        "trapezoid, 2022": Trapezoid(),
    }.items():
        axis.plot(X, transfer(X) / transfer.saturation, label=label)
    axis.set(xlabel="pooled activation x", ylabel="o / level of saturation", title="transfers")
    axis.legend(fontsize=7, loc="lower center")


def show_sigma_near_alpha(axis: plt.Axes) -> None:
    """Where the paper's sigma exceeds its bound."""
    sigma = Sigma()
    axis.plot(X, sigma(X), label="sigma, paper")
    axis.axhline(sigma.alpha, color="k", lw=0.8, ls="--", label="alpha")
    axis.axvline(sigma.crossing, color="tab:red", lw=0.8, label=f"x* = {sigma.crossing:.4f}")
    axis.plot(1, sigma.maximum, "ko", ms=4, label=f"maximum = {sigma.maximum:.3f}")
    axis.set(ylim=(0.097, 0.1015), xlabel="pooled activation x", ylabel="o", title="alpha is not a bound")
    axis.legend(fontsize=7, loc="lower right")


def show_losses(axis: plt.Axes) -> None:
    """What one disease sample pays, logarithmic."""
    logits = torch.logit(X).view(-1, 1, 1, 1)
    out = SigmaHead()(logits, torch.ones_like(logits, dtype=torch.bool))
    for label, objective in {
        "printed: |o - alpha|": PooledLoss(),
        "maximum: |o - sigma(1)|": PooledLoss(target="maximum"),
        "one-sided at alpha": PooledLoss(one_sided=True),
    }.items():
        loss = objective.statistics(out, torch.ones(len(X)))[:, 0]
        axis.semilogy(X, loss.where(loss > 0, torch.nan), label=label)
    axis.set(ylim=(1e-6, 0.2), xlabel="pooled activation x", ylabel="loss", title="what a disease sample pays")
    axis.legend(fontsize=7, loc="upper right")


if __name__ == "__main__":
    main()
