"""A cohort: samples with labels, groups and splits in one Zarr v3 group. Prepare it, read it, check it."""

from __future__ import annotations

from compseg.cohort.corrected import Corrected
from compseg.cohort.locations import exists, is_url, location, upload
from compseg.cohort.problems import Problem, find_problems, refuse_fatal
from compseg.cohort.splits import DEFAULT_SPLITS, assign_splits, hold_out
from compseg.cohort.store import REPLACED, Cohort
from compseg.cohort.writer import prepare

__all__ = [
    "DEFAULT_SPLITS",
    "REPLACED",
    "Cohort",
    "Corrected",
    "Problem",
    "assign_splits",
    "exists",
    "find_problems",
    "hold_out",
    "is_url",
    "location",
    "prepare",
    "refuse_fatal",
    "upload",
]
