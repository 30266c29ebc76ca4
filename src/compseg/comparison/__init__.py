"""Comparisons: methods x models x cohorts x seeds, several jobs at once, one table and one picture of all."""

from __future__ import annotations

from compseg.comparison.plan import Planned, plan
from compseg.comparison.run import compare

__all__ = ["Planned", "compare", "plan"]
