"""Plots docs/explanation/alpha.png from a sweep over `head.alpha`: `python docs/explanation/alpha_figure.py SWEEP`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from compseg.cohort import Cohort
from compseg.run_folder import load_config


def main() -> None:
    """The map of one disease spot in each job, and its truth."""
    runs = sorted((path.parent for path in Path(sys.argv[1]).glob("*/metrics.json")), key=alpha_of)
    cohort = Cohort.open(load_config(runs[0]).data.path)
    spots = [info.name for info in cohort.split("test") if info.label]
    # The spot of median disease share: neither a speck nor full.
    name = sorted(spots, key=lambda spot: cohort.truth(spot).sum())[len(spots) // 2]
    tissue = cohort.tissue(name)
    pictures = {f"alpha = {alpha_of(run):g}": np.load(run / "maps" / f"{name}.npy") for run in runs}
    figure, axes = plt.subplots(1, len(runs) + 1, figsize=(1.6 * (len(runs) + 1), 1.9), layout="constrained")
    for axis, (title, activation) in zip(
        axes, {**pictures, "truth": cohort.truth(name).astype(float)}.items(), strict=True
    ):
        axis.imshow(np.where(tissue, activation, np.nan), vmin=0, vmax=1, cmap="magma")
        axis.set_title(f"{title}\nx = {activation[tissue].mean():.3f}", fontsize=8)
        axis.axis("off")
    figure.savefig(Path(__file__).parent / "alpha.png", dpi=100)


def alpha_of(run: Path) -> float:
    """The alpha that a job was trained with."""
    return float(load_config(run).head.alpha)


if __name__ == "__main__":
    main()
