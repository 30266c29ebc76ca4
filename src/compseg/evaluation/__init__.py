"""Figures of merit with intervals: how good a set of activation maps is."""

from compseg.evaluation.metrics import prevalence
from compseg.evaluation.sample_map import SampleMap
from compseg.evaluation.tables import (
    FIGURES,
    FOR_SELECTION,
    NEED_TRUTH,
    figures,
    figures_of_splits,
    metrics,
    samples_csv,
    write_replicates,
)

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
