"""A cohort: samples with labels, groups and splits in one Zarr v3 group. Prepare it, read it, check it."""

from __future__ import annotations

from compseg.cohort.faults import Fault, find_faults
from compseg.cohort.places import exists, is_url, place, upload
from compseg.cohort.splits import DEFAULT_SPLITS, assign_splits, hold_out
from compseg.cohort.store import Cohort
from compseg.cohort.writer import prepare

__all__ = [
    "DEFAULT_SPLITS",
    "Cohort",
    "Fault",
    "assign_splits",
    "exists",
    "find_faults",
    "hold_out",
    "is_url",
    "place",
    "prepare",
    "upload",
]
