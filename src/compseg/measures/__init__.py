"""Figures of merit with intervals: how good a set of activation maps is."""

from compseg.measures.metrics import metrics, samples_csv
from compseg.measures.sample_map import SampleMap
from compseg.measures.scores import prevalence

__all__ = ["SampleMap", "metrics", "prevalence", "samples_csv"]
