"""Sweeps: a process for each job, one table and one picture of all. Imported with every training run, hence light."""

from __future__ import annotations

from compseg.sweeps.callback import SweepCallback
from compseg.sweeps.jobs import was_pruned
from compseg.sweeps.launch import run_job
from compseg.sweeps.summary import summarise

__all__ = ["SweepCallback", "run_job", "summarise", "was_pruned"]
