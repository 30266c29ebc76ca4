"""Figures of merit with intervals: how good a set of activation maps is."""

from compseg.measures.metrics import (
    FIGURES,
    FOR_SELECTION,
    NEED_TRUTH,
    figures,
    figures_of_splits,
    metrics,
    samples_csv,
    write_replicates,
)
from compseg.measures.sample_map import SampleMap
from compseg.measures.scores import prevalence

__all__ = [
    "FIGURES",
    "FOR_SELECTION",
    "NEED_TRUTH",
    "SampleMap",
    "figures",
    "figures_of_splits",
    "metrics",
    "prevalence",
    "samples_csv",
    "write_replicates",
]
