"""Prints the table of thresholds.md: `python docs/explanation/thresholds_table.py`, about two minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from compseg.evaluation.metrics import dice
from compseg.evaluation.thresholds import fit_from_labels, fit_from_truth, fixed

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from made_maps import mixture

SETTINGS = {
    "clear": {"separation": 4, "shares": (0.2, 0.6), "spread": 0.3},
    "plain": {"separation": 3, "shares": (0.1, 0.5), "spread": 0.3},
    "uneven samples": {"separation": 3, "shares": (0.1, 0.5), "spread": 0.6},
    "faint and small": {"separation": 2, "shares": (0.05, 0.2), "spread": 0.6},
}


def mean_dice(maps, threshold):
    return np.mean([dice(item, threshold) for item in maps if item.info.label])


for name, setting in SETTINGS.items():
    for count in (8, 14, 40):
        scores = []
        for seed in range(20):
            val, test = mixture(count, seed=seed, **setting), mixture(40, seed=500 + seed, **setting)
            scores.append([mean_dice(test, t) for t in (fit_from_labels(val), fit_from_truth(val), fixed())])
        labels, truth, paper = np.mean(scores, axis=0)
        worst = np.min(scores, axis=0)[0]
        print(f"| {name} | {count} | {labels:.2f} ({worst:.2f}) | {truth:.2f} | {paper:.2f} |")
