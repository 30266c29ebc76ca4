"""Sample maps made by hand or drawn from a known mixture, for the tests of evaluation and report."""

from __future__ import annotations

import numpy as np

from compseg.evaluation.curves import SampleMap
from compseg.samples import SampleInfo


def by_hand(activation, truth=None, label=1, tissue=None, name="s", **info):
    """A sample from nested lists."""
    a = np.atleast_2d(np.array(activation, dtype=np.float32))
    m = np.ones(a.shape, bool) if tissue is None else np.atleast_2d(np.array(tissue, dtype=bool))
    t = None if truth is None else np.atleast_2d(np.array(truth, dtype=bool))
    return SampleMap(
        SampleInfo(name, label, **info), np.where(m, a, 0).astype(np.float32), m, t, float(a.mean()), float(a.mean())
    )


def mixture(count, seed=0, separation=3.0, shares=(0.15, 0.5), spread=0.3, size=24, truth=True, scale=1.0, offset=0):
    """Half disease, half healthy: normal scores, raised by `separation` in a disc, squashed by a sigmoid."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    made = []
    for i in range(count):
        label, disc = i % 2, np.zeros((size, size), bool)
        if label:
            radius = size * np.sqrt(rng.uniform(*shares) / np.pi)
            y, x = rng.uniform(0.35, 0.65, 2) * size
            disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        score = rng.normal(0, spread) + rng.normal(size=(size, size)) + separation * disc - 1.5
        tissue = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (0.49 * size) ** 2
        activation = (scale / (1 + np.exp(-score)) * tissue).astype(np.float32)
        x = float(activation[tissue].mean())
        info = SampleInfo(f"s{offset + i:03d}", label, "T" if label else "N", "test", "AB"[i // 2 % 2], f"p{i}")
        made.append(SampleMap(info, activation, tissue, disc & tissue if truth else None, np.tanh(5 * x) / 10, x))
    return made
