"""Studies: many runs by one plan (grid, comparison or search), a process each; one table, one page, one picture.

Every training run imports this room, so it imports nothing heavy.
"""

from __future__ import annotations

from compseg.studies.page import summarise
from compseg.studies.record import is_job, was_pruned
from compseg.studies.sweep import SweepCallback, run_job

__all__ = ["SweepCallback", "is_job", "run_job", "summarise", "was_pruned"]
